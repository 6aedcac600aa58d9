"""Where a run's processes are: in this one, or on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass

from pisa_ray.engine.asynchrony import Arrivals
from pisa_ray.engine.fleet import Fleet, LocalFleet, Log
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import borrowed_process
from pisa_ray.trainer.events import Events
from pisa_ray.trainer.settings import Scaling

#: Starts the processes of a run.
FleetFactory = Callable[[Job, Events, Callable[[], bool]], AbstractContextManager[Fleet]]


@dataclass(frozen=True)
class Places:
    """What is to be known to start the processes of a run.

    Attributes:
        scaling: How wide it is.
        threads: Of a worker's numeric work.
        pins: Where shards are pinned: the node label, and its value by shard.
        max_failures: Deaths that are put up with; -1: any number.
        exact: Whether workers that compute differently are refused.
        address: As in ray.init.
        replay: The log of the asynchronous run that is repeated, or None.
    """

    scaling: Scaling
    threads: int
    pins: tuple[str, dict[int, str]]
    max_failures: int
    exact: bool
    address: str | None
    replay: Arrivals | None

    @contextmanager
    def session(
        self,
        log: Log,
        stop_requested: Callable[[], bool] = lambda: False,
        hanging: Callable[[str], None] | None = None,
    ) -> Iterator[FleetFactory]:
        """Connect to Ray, where it is needed; yields what starts the processes, again after a loss of states.

        Args:
            log: Takes note of arrivals in asynchronous rounds.
            stop_requested: Whether the user asked to stop; looked at while Ray starts.
            hanging: Told if Ray is gone and the run hangs in a call to it; then the process is ended. None: it is not.
        """
        scaling = self.scaling
        if scaling.most == 0:

            def local(job: Job, events: Events, stop_requested: Callable[[], bool]) -> AbstractContextManager[Fleet]:
                fleet = LocalFleet(job, gpu=scaling.gpus > 0, log=log, replay=self.replay)
                (info,) = fleet.workers()
                events("worker_started", worker=0, pid=info.pid, node=info.node, device=info.device)
                return nullcontext(fleet)

            with borrowed_process(self.threads):
                yield local
            return
        # Here, so that a run without workers needs no Ray.
        from pisa_ray.actors import (  # noqa: PLC0415
            RayFleet,
            RayResources,
            Sites,
            Staffing,
            Wanted,
            ray_session,
        )

        resources = RayResources(
            scaling.cpus, scaling.gpus, scaling.other, scaling.labels, scaling.accelerator, scaling.spread
        )
        wanted = Wanted(
            scaling.least,
            scaling.most,
            scaling.patience,
            scaling.frozen_after,
            self.max_failures,
            self.exact,
            scaling.look_every,
        )
        staffing, sites = Staffing(wanted), Sites(*self.pins)

        def remote(job: Job, events: Events, stop_requested: Callable[[], bool]) -> AbstractContextManager[Fleet]:
            arguments = job, staffing, resources, events, stop_requested
            return closing(RayFleet(*arguments, sites, log, self.replay))

        with ray_session(scaling.least, scaling.most, resources, self.address, stop_requested, hanging):
            yield remote
