"""Starts the processes of a run: in this process, or on Ray."""

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
    """The settings that start the processes of a run.

    Attributes:
        scaling: The number of workers and their resources.
        threads: The number of threads of a worker.
        pins: The label of the sites, and the site of each pinned shard.
        max_failures: The number of deaths that the run survives; -1: any number.
        exact: Whether workers that compute differently are refused.
        address: The address of Ray, as in ray.init.
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
        """Connect to Ray if the run has workers, and yield a function that starts the processes, once per attempt.

        Args:
            log: Records arrivals in asynchronous rounds.
            stop_requested: Returns whether the user asked to stop; it is called while Ray starts.
            hanging: Called before the process ends because Ray has died and a call to it hangs. None: it hangs on.
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
        # Imported here, so that a run without workers needs no Ray.
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
