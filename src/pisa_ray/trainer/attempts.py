"""A run from its first attempt to its end: begins, resumes, goes back to checkpoints, and records how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from pisa_ray.algorithm import number
from pisa_ray.engine.fleet import Fleet
from pisa_ray.errors import ConfigError, NonFiniteError, PisaError, RayLostError, StatesLostError, StoppedWaitingError
from pisa_ray.trainer import checkpoint
from pisa_ray.trainer.changes import Changes
from pisa_ray.trainer.checkpoint import Checkpoint, check_environment
from pisa_ray.trainer.display import Display
from pisa_ray.trainer.events import Events
from pisa_ray.trainer.interrupt import StopRequests
from pisa_ray.trainer.loop import Loop
from pisa_ray.trainer.manifest import Progress
from pisa_ray.trainer.places import FleetFactory
from pisa_ray.trainer.plan import Plan
from pisa_ray.trainer.result import Result
from pisa_ray.trainer.resume import check_data, check_resumable
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.start import found_numbers, found_sigma, is_automatic, measured, with_numbers
from pisa_ray.trainer.steps import Steps
from pisa_ray.trainer.storage import check_storage
from pisa_ray.trainer.watch import Watch, below_the_edge

#: A run fails after so many losses of states without a newer checkpoint in between, or so many doublings of sigma.
#: After the last doubling, a loss that has only risen no longer ends an attempt.
MOST_LOSSES, MOST_DOUBLINGS = 3, 10


class Attempts:
    """Runs a plan in a run directory.

    Args:
        plan: The plan.
        directory: The run directory, whose lock is held.
        changes: Shards that are to join or leave.
        sizes: Receives the numbers of workers that the user asks for.
        resume: Whether to resume the run in the directory.
        quiet: Whether to show no progress.
        warn: Whether to warn when sigma is far too small, or grows too fast.

    Raises:
        ConfigError: If the directory is taken, or holds a run that this plan cannot resume.
    """

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        changes: Changes,
        sizes: SimpleQueue[int],
        *,
        resume: bool,
        quiet: bool,
        warn: bool,
    ) -> None:
        self._plan, self._directory, self._changes, self._sizes = plan, directory, changes, sizes
        self._resume, self._quiet, self._warn = resume, quiet, warn
        self._unknown: list[str] = []
        self._check_directory()

    def run(self) -> Result:
        """Run to the end; see `PisaTrainer.fit`."""
        events = Events(self._directory, quiet=self._quiet)

        def hanging(message: str) -> None:
            if events.accepted:
                self._fail(RayLostError(message))

        log = self._directory.records.add_arrivals
        with StopRequests() as stop_requests, self._plan.places.session(log, stop_requests, hanging) as make_fleet:
            self._directory.requests.take_resize()  # drop a request that an earlier run did not read
            try:
                return self._attempts(make_fleet, stop_requests, events)
            except BaseException as error:
                if events.accepted:  # else the run has not begun
                    self._fail(error, "interrupted" if isinstance(error, StoppedWaitingError) else "failed")
                if isinstance(error, OSError):
                    raise PisaError(
                        f"the run directory cannot be written: {error}; resume=True goes on from the last checkpoint."
                    ) from error
                if isinstance(error, ConfigError) and events.accepted:
                    raise PisaError(str(error)) from error  # a refusal may only come before the run begins
                raise

    def _take(self, events: Events) -> None:
        """Take the folder, once, when the first round is about to begin, so that a refusal before changes nothing."""
        if not events.accepted:
            take = self._directory.go_on if self._directory.has_begun() else self._directory.take
            take(self._plan.recorded, self._plan.prepared.partition)

    @contextmanager
    def steps(self) -> Iterator[Steps]:
        """Start the run; see `PisaTrainer.steps`."""
        with self._plan.places.session(self._directory.records.add_arrivals) as make_fleet:
            events = Events(self._directory, quiet=True)
            with make_fleet(self._changes.job, events, lambda: False) as fleet:
                progress, rounds = self._start(fleet, events), self._plan.config.rounds
                self._take(events)
                events.accept(0)
                display = Display(rounds, quiet=True)
                loop = Loop(
                    self._changes.job,
                    fleet,
                    self._plan.config,
                    self._plan.sigma,
                    self._directory,
                    self._plan.identity,
                    display,
                    events,
                    lambda: False,
                    lambda: None,
                    self._changes,
                    progress,
                )
                yield Steps(loop, rounds)

    def _check_directory(self) -> None:
        """Refuse a folder that is taken, or holds a run that these options cannot resume."""
        if not self._resume:
            self._directory.check_free()
        if self._directory.storage is not None:
            check_storage(self._directory.storage)
        if self._resume and self._directory.has_begun():
            self._unknown = check_resumable(self._directory.config(), self._plan.recorded)
            check_data(
                self._directory.known_data(),
                self._plan.prepared.partition["data"],
                "resume with those data, wherever they lie.",
            )
            last = checkpoint.latest(self._directory.checkpoints)
            if last:
                last.check_fits(self._plan.identity)
                self._changes.after(last.progress.changes)  # refuses before anything is started

    def _attempts(
        self,
        make_fleet: FleetFactory,
        stop_requested: Callable[[], bool],
        events: Events,
    ) -> Result:
        """Run, and go back to the last checkpoint when states are lost or the loss explodes, if not too often."""
        stuck, reached = 0, -1
        doublings, diverged = 0, -1
        resuming = self._resume and self._directory.has_begun()
        if not resuming:
            for note in self._plan.prepared.notes:
                events("warning", message=note)
        if (robust := self._plan.prepared.job.robust) is not None:
            events("robust", message=robust.caveat(len(self._plan.prepared.job.shards)))
        while True:
            last = self._directory.latest() if resuming else None
            if last and last.progress.round > diverged:
                doublings = 0
            try:
                job = self._changes.after(last.progress.changes if last else [])
                job = with_numbers(job, last.progress.start if last else {})
                self._changes.settle(job, [])
                with make_fleet(job, events, stop_requested) as fleet:
                    return self._attempt(fleet, events, stop_requested, last, resuming, doublings)
            except StatesLostError as error:
                last = self._directory.latest()
                progress = last.progress.round if last else 0
                stuck, reached = (stuck + 1, reached) if progress <= reached else (1, progress)
                events("states_lost", message=f"{error} Going on from round {progress}.")
                if stuck == MOST_LOSSES:
                    raise PisaError(
                        f"states were lost {stuck} times after round {reached} without a newer checkpoint: look for a "
                        "crash in the model or for too little memory; resume=True tries again."
                    ) from error
                resuming = True
            except NonFiniteError as error:
                last = self._directory.latest()
                progress = last.progress.round if last else 0
                doublings, diverged = (doublings + 1, diverged) if progress <= diverged else (1, progress)
                if not is_automatic(self._plan.prepared.job.method) or doublings > MOST_DOUBLINGS:
                    raise
                where = f"round {progress}" if progress else "the start"
                reason = str(error).partition(": ")[0]
                times = f"{2**doublings} times " if doublings > 1 else "twice "
                events("backed_off", message=f"{reason}; going on from {where} at {times}the sigma")
                resuming = True

    def _attempt(
        self,
        fleet: Fleet,
        events: Events,
        stop_requested: Callable[[], bool],
        last: Checkpoint | None,
        resuming: bool,
        doublings: int,
    ) -> Result:
        """Run the loop on a fleet, from a checkpoint if there is one, with sigma doubled so many times."""
        rounds, sigma = self._plan.config.rounds, self._plan.sigma
        now = fleet.workers()[0].environment
        differing = check_environment(last.manifest["environment"], now, exact=self._plan.config.exact) if last else []
        events.round = last.progress.round if last else 0
        progress = last.restore(fleet) if last else self._start(fleet, events)
        job = self._changes.job
        progress.sigma *= 2.0**doublings
        progress.exact = progress.exact and not differing
        display = Display(rounds, progress.round, quiet=self._quiet, penalty=job.method.duals)
        events.display = display
        self._take(events)
        mended = self._directory.cut_back(last) if resuming else []
        events.accept(progress.round)
        if resuming:
            events("resumed", checkpoint=last.folder.name if last else None)
        for message in self._unknown:
            events("warning", message=message)
        self._unknown = []
        for message in mended:
            events("mended", message=message)
        if differing:
            events("inexact", message=" ".join(differing))
        if last:
            display.say(f"resuming at round {progress.round}")
        elif self._resume:
            display.say(f"{self._directory.path} has no complete checkpoint: starting from round 0")
        first = self._plan.prepared.job
        if unused := first.train.rows - sum(len(rows) for rows in (*first.shards, *first.held_out)):
            display.say(f"{unused} of {first.train.rows} training rows belong to no shard")
        loop = Loop(
            job,
            fleet,
            self._plan.config,
            sigma,
            self._directory,
            self._plan.identity,
            display,
            events,
            stop_requested,
            self._asked_size,
            self._changes,
            progress,
            Watch(sigma, rounds, progress.sigma, progress.round) if self._warn else None,
            may_explode=found_sigma(progress.start) and doublings < MOST_DOUBLINGS,
            may_turn=found_sigma(progress.start) and sigma.planned,
            last_row=self._directory.records.last_row(),
        )
        try:
            status = loop.run()
        finally:
            display.close()
            events.display = None
        digest = fleet.export(progress.round, str(self._directory.model))
        metrics = self._end(
            status,
            {
                "rounds": progress.round,
                **loop.last_row,
                **progress.best,
                "exact": progress.exact and not events.inexact,
                "weights_sha256": digest,
                "seconds": progress.seconds,
                "gradient_seconds": progress.gradient_seconds,
            },
        )
        rule, folder = self._plan.config.run.kept, self._directory.checkpoints
        saved = checkpoint.latest(folder)
        best = checkpoint.best(folder, rule.best_by, rule.order) if rule.best_by else None
        return Result(
            status,
            metrics,
            self._directory.path,
            saved.place if saved else Path(folder.path),
            best.place if best else None,
            self._plan.prepared.job,
        )

    def _start(self, fleet: Fleet, events: Events) -> Progress:
        """Set the numbers that are still to be set before round 1."""
        fleet.tend()  # so that every shard has a host
        planned = getattr(self._plan.sigma, "rounds", None) or self._plan.config.rounds
        job, found, samples = measured(fleet, self._changes.job, self._plan.prepared.layout, planned)
        if found:
            numbers = found_numbers(self._changes.job.method, found)
            fleet.start(job)
            self._changes.settle(job, [])
            events("started", numbers=numbers, **found)
        if self._warn and "sigma" not in found and (warning := below_the_edge(fleet, job)):
            events("warning", message=warning)
        return Progress(sigma=number(job.method.sigma), start=found, sample_gradients=samples)

    def _asked_size(self) -> int | None:
        """Return the number of workers that `resize` or `pisa-ray resize` asked for since the last call, if any."""
        asked = self._directory.requests.take_resize() if self._sizes.empty() else None
        with suppress(Empty):
            while True:
                asked = self._sizes.get_nowait()
        return asked

    def _end(self, status: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        metrics = {"name": self._plan.config.run.name or self._directory.path.name, "status": status, **fields}
        self._directory.write("result.json", metrics)
        self._directory.records.add_event(status, int(fields["rounds"]))
        self._directory.publish(results=True)
        return metrics

    def _fail(self, error: BaseException, status: str = "failed") -> None:
        """Record how the run ended, unless the disk fails too."""
        kind = type(error).__name__
        message = str(error) if isinstance(error, PisaError | OSError) else kind
        with suppress(OSError, PisaError):
            last = self._directory.records.last_row()
            self._end(status, {"error": kind, "message": message, "rounds": last.get("round", 0), **last})
