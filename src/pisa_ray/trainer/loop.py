"""The round loop, which the driver runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from pisa_ray.engine.evaluation import means, worst
from pisa_ray.engine.fleet import Fleet, Pending
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.errors import ExplodedError, PisaError
from pisa_ray.schedulers import OnlineK0, Seen, SigmaSchedule
from pisa_ray.trainer.changes import Changes
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.display import Display
from pisa_ray.trainer.events import Events
from pisa_ray.trainer.manifest import Progress
from pisa_ray.trainer.misled import FACTOR, has_exploded, has_turned
from pisa_ray.trainer.rows import check_finite, mean_loss, row_of
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.saving import CheckpointWriter
from pisa_ray.trainer.watch import Watch

#: How often the last checkpoint is tried if workers die while they write it.
LAST_TRIES = 3


@dataclass
class Loop:
    """Runs rounds on a fleet until the end or a reason to stop, and writes rows, events and checkpoints.

    Attributes:
        job: The present job, which changes when shards join and leave.
        fleet: The fleet.
        config: The options of the run.
        sigma: The sigma schedule.
        directory: The run directory.
        identity: What a checkpoint must have in common with the run: a hash of the data, the parameters' shapes.
        display: Shows progress.
        events: Records events.
        stop_requested: Returns whether the user asked to stop.
        resize_requested: Returns the number of workers the user asked for since the last call, or None.
        changes: Shards that the user wants to join or leave.
        progress: The progress of the run; it starts with a checkpoint's if the run is resumed.
        watch: Warns of a w that freezes, or None.
        may_explode: Whether a loss far above the first round's ends the run with ExplodedError.
        may_turn: Whether sigma is raised when the loss has turned.
    """

    job: Job
    fleet: Fleet
    config: Config
    sigma: SigmaSchedule
    directory: RunDirectory
    identity: Mapping[str, Any]
    display: Display
    events: Events
    stop_requested: Callable[[], bool]
    resize_requested: Callable[[], int | None]
    changes: Changes
    progress: Progress
    watch: Watch | None = None
    may_explode: bool = False
    may_turn: bool = False
    last_row: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._since, self._before, self._start = time.perf_counter(), self.progress.seconds, self.progress.round
        self._last = self.config.rounds  # the round to run to
        self._due: dict[str, Any] | None = None  # a row that is still to be evaluated
        self._latest: dict[str, Any] | None = None  # the row of the last round
        self._writer = CheckpointWriter(
            self.fleet, self.directory, self.identity, self.config.run.kept, self.events, self.progress
        )

    def run(self) -> str:
        """Run to the end.

        Returns:
            "finished", "stopped" or "interrupted".

        Raises:
            NonFiniteError: If a loss, message or w is not finite, or the loss has exploded; that round is not saved.
        """
        try:
            status = self.advance()
            if (
                self._writer.saved != self.progress.round and self.progress.round
            ):  # before round 1 there is nothing to save
                self._save(LAST_TRIES)
        except PisaError:
            with suppress(PisaError, OSError):
                self._writer.finish()  # a good checkpoint that is under way is not lost
            raise
        self._writer.finish(LAST_TRIES)
        return status

    def advance(self, until: int | None = None) -> str:
        """Run to a round, or to the end, but write no last checkpoint; return the status as `run` does."""
        self._last = self.config.rounds if until is None else until
        status: str | None = None
        while (status := status or self._stop_reason()) is None or not self.fleet.is_settled():
            schedule, progress = self.sigma, self.progress
            if status is None and schedule.chooses(progress.round, progress.memory) and not self._choose_k0():
                continue  # the trials were interrupted and have changed nothing
            round_ = progress.round + 1
            sigma = schedule.grow(progress.sigma, round_, progress.memory)
            if not 0 < sigma < math.inf:
                raise PisaError(
                    f"{type(schedule).__name__}.grow gives sigma = {sigma} in round {round_}, but it must be a finite "
                    "number above 0: correct the schedule."
                )
            for message in self.directory.requests.set_aside_garbage():
                self.events("request_refused", message=message)
            if (workers := self.resize_requested()) is not None:
                self.events("resize_requested", workers=workers)
                self.fleet.resize(workers)
            self.fleet.tend()
            self.changes.receive(self.directory.requests.asked_shards())
            if self.changes.waiting and self.fleet.is_settled():
                self._change()
            settle = status is not None or round_ == self._last or self._is_saved(round_)
            settle = settle or bool(self.changes.waiting)
            diagnose = self._is_evaluated(round_) or self._is_measured(round_)
            self.fleet.begin(RoundSpec(round_, sigma, diagnose), settle)
            self._evaluate()  # the row of the last round, at the w that this round begins with, while this one goes on
            self._finish_round(round_, sigma)
        if self._latest is not None and self._due is None and self.last_row.get("round") != self.progress.round:
            self._due = self._latest  # the last round is always evaluated
        self._evaluate()
        return status

    def _choose_k0(self) -> bool:
        from pisa_ray.trainer.online import choose_k0  # noqa: PLC0415  (Tune takes long to import)

        self._evaluate()  # the row of the last round
        schedule = cast("OnlineK0", self.sigma)
        return choose_k0(self.fleet, self.job, schedule, self.progress, self.events, self.stop_requested)

    def _change(self) -> None:
        """Let shards join and leave, as the user has asked, and save a checkpoint at once."""
        self._evaluate()  # the row of the last round, on the shards of that round
        waiting = list(self.changes.waiting)
        job, made, refused = self.changes.all_made(self.job, waiting, self.progress)
        for message in refused:
            self.events("shards_refused", message=message)
        if made:
            self.fleet.change(job)
            self.job = job
            self.progress.changes = [*self.progress.changes, *made]
            for change in made:
                self.events(**{key: value for key, value in change.items() if key not in ("round", "name")})
            if job.asynchronous is not None:
                self.directory.records.end_arrivals(self.progress.round)
            self._save(LAST_TRIES)
            self._writer.finish(LAST_TRIES)
        self.changes.settle(job, waiting)
        for asked in waiting:
            self.directory.requests.forget_shards(asked)

    def _is_evaluated(self, round_: int) -> bool:
        return round_ % self.config.evaluate_every == 0 or round_ == self._last

    def _is_measured(self, round_: int) -> bool:
        """Return whether the sigma schedule needs a round's residuals."""
        schedule = self.sigma
        return schedule.measures and schedule.looks(round_)

    def _is_saved(self, round_: int) -> bool:
        every = self.config.checkpoint_every
        return every is not None and round_ % every == 0

    def _stop_reason(self) -> str | None:
        config, progress = self.config, self.progress
        if config.stop_test_accuracy is not None:
            self._evaluate()  # the decision must not depend on when evaluations end
            if self.last_row.get("test_accuracy", 0.0) >= config.stop_test_accuracy:
                return "stopped"
        if progress.round >= self._last:
            return "finished"
        if config.stop_seconds is not None and progress.seconds >= config.stop_seconds:
            return "stopped"
        return "interrupted" if self.stop_requested() else None

    def _finish_round(self, round_: int, sigma: float) -> None:
        report, progress = self.fleet.end(), self.progress
        check_finite(self.job, round_, sigma, report)
        loss = mean_loss(self.job, report)
        if self.may_explode and has_exploded(progress, loss):
            raise ExplodedError(
                f"round {round_} has a loss of {loss:.3g} at sigma {sigma:g}, which was {progress.first_loss:.3g} in "
                f"round 1: {self.job.method.remedy} usually helps."
            )
        if round_ == 1:
            progress.first_loss = loss
        progress.round, progress.sigma = round_, sigma
        progress.sample_gradients += sum(shard.samples for shard in report.shards.values())
        progress.bytes_sent += report.bytes_sent
        progress.gradient_seconds += report.gradient_seconds
        progress.seconds = self._before + time.perf_counter() - self._since
        self.events.round, progress.exact = round_, progress.exact and not self.events.inexact
        self.display.round(sigma, loss)
        row = row_of(self.job, self.sigma, progress, report, len(self.fleet.workers()))
        self._latest = row
        if self._is_evaluated(round_):
            self._due = row
        seen = Seen(loss, row["primal_residual"], row["consensus_move"], row.get("augmented_lagrangian"))
        progress.sigma, memory = self.sigma.adapt(sigma, round_, seen, progress.memory)
        progress.memory = dict(memory)
        if self.may_turn and has_turned(progress.losses, loss, self._last):
            progress.sigma *= FACTOR
            self.events("sigma_raised", sigma=progress.sigma, factor=FACTOR)
        if self._is_saved(round_):
            self._save()
        else:
            self._writer.finish_if_ready()

    def _evaluate(self) -> None:
        """Complete and write the row that is due, at the w published after its round."""
        if self._due is None:
            return
        row, self._due, fleet, job = self._due, None, self.fleet, self.job
        pending: dict[str, Pending] = {}
        partial = False  # whether the held-out rows of some shards are missing
        if job.test is not None:
            pending["test"] = fleet.evaluate("test")
        if job.validation is not None:
            pending["validation"] = fleet.evaluate("validation")
        elif any(len(rows) for rows in job.held_out):
            pending["validation"] = fleet.evaluate_shards(held_out=True)
        for split, sums in pending.items():
            found = sums().values()
            row |= {f"{split}_{name}": value for name, value in means(found).items()}
            if split == "validation" and job.validation is None:  # one sum per shard
                partial = len(found) < len(job.present)
                row |= {f"{split}_worst_shard_{name}": value for name, value in worst(found).items()}
        best = self.progress.best
        for name, value in row.items():  # the extra row of an interrupted run sets no best value
            scheduled = self._is_evaluated(row["round"])
            measured = ("test_",) if partial else ("test_", "validation_")
            if scheduled and name.startswith(measured) and math.isfinite(value):
                better = min if name.endswith("loss") else max
                best[f"best_{name}"] = better(best.get(f"best_{name}", value), value)
        self.last_row = row
        self.directory.records.add_row(row)
        seconds = self.progress.seconds - self._before
        if self.watch is not None and (warning := self.watch.frozen(row)):
            self.events("warning", message=warning)
        self.display.row(row, (self.progress.round - self._start) / seconds if seconds else 0.0)

    def _save(self, tries: int = 0) -> None:
        """Begin to write a checkpoint of the last round."""
        self._evaluate()  # so that metrics and best values are those of the round that is saved
        self._writer.save(self.last_row, tries)
