"""The trials of schedulers.OnlineK0, which begin with the state of the run and use its own workers.

A trial needs every shard's rows, which the workers have and which perhaps must stay there. So trials follow one another
on the whole fleet, and states stay on their workers or are passed by reference. Of Ray Tune, only the protocol of its
searchers is used: `suggest` and `on_trial_complete`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ray.tune.search import Searcher

from pisa_ray.engine.evaluation import means
from pisa_ray.engine.fleet import Fleet
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.schedulers import LARGEST, OnlineK0
from pisa_ray.trainer.events import Events
from pisa_ray.trainer.manifest import Progress


class Neighbours(Searcher):
    """Suggests the present period, then longer ones while each is better than the last, or else shorter ones.

    If the present period is shorter than the shortest that may be tried, it is replaced by that one.

    Args:
        schedule: Sets the ratio of neighbours, and how much better a loss must be.
        round_: The last round done.
        k0: The present period.
        most: The largest number of trials.

    Attributes:
        losses: Held-out losses so far, by period; infinite if a trial went to NaN or infinity.
        best: The best period so far.
    """

    def __init__(self, schedule: OnlineK0, round_: int, k0: int, most: int) -> None:
        super().__init__(metric="loss", mode="min")
        self._shortest = schedule.shortest(round_)
        self._schedule, self._round, self._first, self._most = schedule, round_, max(k0, self._shortest), most
        self._asked: dict[str, int] = {}
        self.losses: dict[int, float] = {}
        self.best = self._first

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]  # as Tune's own searchers do
        """Return the period of the next trial; see Searcher."""
        k0 = self._next()
        if k0 is None:
            return str(Searcher.FINISHED)
        self._asked[trial_id] = k0
        return {"k0": k0}

    def _next(self) -> int | None:
        if not self.losses:
            return self._first
        if len(self.losses) >= self._most:
            return None
        factor = self._schedule.factor
        longer = max(self.best + 1, round(self.best * factor))
        shorter = max(self._shortest, round(self.best / factor))
        for k0, over in ((longer, self.best >= self._first), (shorter, self.best <= self._first)):
            if over and k0 not in self.losses and k0 <= self._schedule.length_of_run:
                return k0
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record the loss of a trial; see Searcher."""
        k0, loss = self._asked.pop(trial_id), (result or {}).get("loss", math.inf)
        self.losses[k0] = loss if math.isfinite(loss) and not error else math.inf
        bar = self.losses.get(self.best, math.inf)
        needed = self._schedule.needed(k0, self.best, self._round)
        if self.losses[k0] < bar - needed * abs(bar) or (bar == math.inf > self.losses[k0]):
            self.best = k0


class Trials:
    """Trials that begin with the state of a fleet, which is restored after each.

    Args:
        fleet: The fleet, settled between two rounds.
        job: The job.
        schedule: The schedule whose period is tried.
        round_: The last round done.
        sigma: The penalty of that round.

    Attributes:
        samples: Sample gradients so far.
        bytes_sent: Bytes of messages so far.
        gradient_seconds: Time spent on gradients so far.
        alike: Whether the same shards have reported in all trials; if not, losses cannot be compared.
    """

    def __init__(self, fleet: Fleet, job: Job, schedule: OnlineK0, round_: int, sigma: float) -> None:
        self._fleet, self._job, self._schedule = fleet, job, schedule
        self._round, self._sigma = round_, sigma
        self._fork = fleet.fork(round_)
        self.samples, self.bytes_sent, self.gradient_seconds = 0, 0, 0.0
        self._shards: list[set[int]] | None = None  # the shards of the first trial, as `_loss` returns them
        self.alike = True

    def choose(self, searcher: Neighbours, stop_requested: Callable[[], bool]) -> bool:
        """Run the trials that the searcher suggests; return whether all were run."""
        number = 0
        while (config := searcher.suggest(f"{self._round}-{number}")) != Searcher.FINISHED:
            if stop_requested():
                return False
            assert isinstance(config, dict)  # noqa: S101  (for the type checker)
            loss, shards = self._loss(config["k0"])
            self._fleet.back(self._fork)
            if self._shards is None:
                self._shards = shards
            if math.isfinite(loss) and len(self._shards) == len(shards):
                self.alike = self.alike and shards == self._shards
            searcher.on_trial_complete(f"{self._round}-{number}", {"loss": loss})
            number += 1
        return True

    def _loss(self, k0: int) -> tuple[float, list[set[int]]]:
        """Run a trial, and return the held-out loss at the mean of w over its second half, which is less noisy than w.

        Returns:
            The loss, infinite if something is not finite; and the shards that reported in each round.
        """
        pace, sigma, length = self._schedule.pace(k0, self._round), self._sigma, self._schedule.length
        total: np.ndarray | None = None
        shards: list[set[int]] = []
        for number in range(1, length + 1):
            sigma = min(sigma * pace, LARGEST)
            self._fleet.tend()
            self._fleet.begin(RoundSpec(self._round + number, sigma), settle=number == length)
            report = self._fleet.end()
            shards.append(set(report.shards))
            samples = sum(shard.samples for shard in report.shards.values())
            self.samples += samples
            self.bytes_sent += report.bytes_sent
            self.gradient_seconds += report.gradient_seconds
            if not report.consensus.finite or not all(shard.finite for shard in report.shards.values()):
                return math.inf, shards
            if number > length // 2:
                w = self._fleet.published()
                total = w.copy() if total is None else total + w
        assert total is not None  # noqa: S101  (for the type checker)
        loss, judged = self._held_out(total / np.float32(length - length // 2), samples)
        return loss, [*shards, judged]

    def _held_out(self, w: np.ndarray, rows: int) -> tuple[float, set[int]]:
        """Return the held-out loss at a vector, on so many rows, and the shards whose rows they were."""
        if self._job.validation is not None:
            sums = self._fleet.evaluate("validation", at=w, rows=rows)()
        else:
            each = max(1, rows // len(self._job.present))
            sums = self._fleet.evaluate_shards(held_out=True, at=w, rows=each)()
        return float(means(sums.values()).get("loss", math.inf)), set(sums)


def choose_k0(
    fleet: Fleet,
    job: Job,
    schedule: OnlineK0,
    progress: Progress,
    events: Events,
    stop_requested: Callable[[], bool],
) -> bool:
    """Choose k0 by trials.

    Args:
        fleet: The fleet, settled between two rounds.
        job: The job.
        schedule: The schedule whose period is tried.
        progress: The progress of the run, to which the choice and its cost are added.
        events: Records the choice.
        stop_requested: Returns whether the user asked to stop.

    Returns:
        Whether all trials were run; if not, they have changed nothing.
    """
    start, before = time.perf_counter(), schedule.period(progress.memory)
    fleet.tend()
    searcher = Neighbours(schedule, progress.round, before, schedule.left(progress.round, progress.memory))
    trials = Trials(fleet, job, schedule, progress.round, progress.sigma)
    if not trials.choose(searcher, stop_requested):
        return False
    k0, number = searcher.best if trials.alike else before, len(searcher.losses)
    progress.memory = schedule.remembered(k0, progress.round, number, trials.samples, progress.memory)
    progress.sample_gradients += trials.samples
    progress.bytes_sent += trials.bytes_sent
    progress.gradient_seconds += trials.gradient_seconds
    # The cost of the planned run without trials, if later rounds cost as much as those so far.
    without = progress.sample_gradients - progress.memory.get("samples", 0)
    planned = without / progress.round * schedule.length_of_run
    events(
        "k0_chosen",
        k0=k0,
        before=before,
        losses={str(k0): loss for k0, loss in sorted(searcher.losses.items())},
        trial_seconds=time.perf_counter() - start,
        tried=", ".join(f"{k0}: {loss:.4g}" for k0, loss in sorted(searcher.losses.items())),
        cost=100 * progress.memory["samples"] / planned,
    )
    return True
