"""The fleet, as the round loop uses it, and the fleet in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from pisa_ray.algorithm import Slope, TreeSum
from pisa_ray.algorithm.message import Node
from pisa_ray.engine.asynchrony import Arrivals, Step
from pisa_ray.engine.consensus import Consensus, read_published, write_published
from pisa_ray.engine.evaluation import Sums
from pisa_ray.engine.files import Folder
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import borrowed_tensor
from pisa_ray.engine.reports import RoundReport, RoundSpec, WorkerInfo
from pisa_ray.engine.states import StoredStates, write_states
from pisa_ray.engine.worker import Worker
from pisa_ray.errors import PisaError

#: Entries of the files of a checkpoint: {"consensus": entry, "shards": [entry, ...]}.
Saved = dict[str, Any]
#: Waits for the sums of an evaluation, and returns them by block or shard.
Pending = Callable[[], dict[int, Sums]]


def added(nodes: Mapping[Node, np.ndarray], shards: int, speakers: Sequence[int]) -> Slope:
    """Return the mean gradients at a point from the sums of workers; see Worker.slope.

    Raises:
        ValueError: If the gradients of some speakers are missing.
    """
    tree = TreeSum(shards)
    tree.expect(speakers)
    for node, row in nodes.items():
        tree.add(node, borrowed_tensor(row))
    return Slope.of(tree.total())


@dataclass(frozen=True)
class Fork:
    """The state of a fleet between two rounds, or references to it, to which the fleet can go back.

    Attributes:
        round: The last round done.
        states: The shards' states.
        published: The published vector.
    """

    round: int
    states: Any
    published: Any


class Saving(Protocol):
    """The files of a checkpoint while they are being written."""

    def done(self) -> bool:
        """Return whether all files are written, or one has failed."""

    def files(self) -> Saved:
        """Wait for the files, and return their entries in the manifest."""


class Fleet(Protocol):
    """Workers that host all shards, and a consensus. Between `begin` and `end` a round is under way."""

    def workers(self) -> list[WorkerInfo]:
        """Return what the workers run on, one entry per process."""

    def tend(self) -> None:
        """Start and release workers between two rounds, move shards, and take snapshots of their states."""

    def resize(self, workers: int) -> None:
        """Ask for another number of workers, which `tend` brings about as the cluster allows."""

    def change(self, job: Job) -> None:
        """Go on with another job, between two rounds, when it is settled.

        Args:
            job: The other job, which differs in shards that have joined (at their initial states) or left the problem.
        """

    def published(self) -> np.ndarray:
        """Return the published vector between two rounds, [p + b + e], which is only read."""

    def slope(self, published: np.ndarray) -> Slope:
        """Return the gradients at a point, [p + b + e], on the first mini-batch of each shard, before round 1."""

    def start(self, job: Job) -> None:
        """Begin again with another job, whose method has more of its numbers set, before round 1."""

    def begin(self, spec: RoundSpec, settle: bool = False) -> None:
        """Start a round at the published w, and return at once if workers are other processes.

        Args:
            spec: The round.
            settle: Whether no report may be under way at its end, so that the state after it can be saved.
        """

    def is_settled(self) -> bool:
        """Return whether no report is under way between two rounds."""

    def end(self) -> RoundReport:
        """Wait for the end of the round, after which the next w is published."""

    def fork(self, round_: int) -> Fork:
        """Return the state of a settled fleet between two rounds, to go back to it."""

    def back(self, fork: Fork) -> None:
        """Go back to a fork, if the fleet is settled between two rounds; all rounds since are undone."""

    def evaluate(self, split: str, *, at: np.ndarray | None = None, rows: int | None = None) -> Pending:
        """Evaluate "test" or "validation" (a separate source).

        Args:
            split: The split's name.
            at: The vector, [p + b + e]; None: the one published last when this is called.
            rows: The number of rows, evenly spaced; None: all.
        """

    def evaluate_shards(self, *, held_out: bool, at: np.ndarray | None = None, rows: int | None = None) -> Pending:
        """Evaluate each shard's own rows, held-out or training ones; see `evaluate`. `rows` is a number per shard."""

    def export(self, rounds: int, path: str) -> str:
        """Write the plain model at the published w, and return its weights_sha256."""

    def save(self, folder: Folder) -> Saving:
        """Begin to write the whole state, as it is between two rounds, to files in a folder."""

    def restore(self, folder: Folder, saved: Mapping[str, Any], rounds: int) -> None:
        """Load what `save` wrote after so many rounds."""

    def close(self) -> None:
        """End the processes; what was saved is not lost."""


#: Records the reports whose messages arrive in a round, before they change w.
Log = Callable[[int, Sequence[Step]], None]


@dataclass(frozen=True)
class _Begun:
    spec: RoundSpec
    published: np.ndarray


@dataclass(frozen=True)
class _Written:
    saved: Saved

    def done(self) -> bool:
        return True

    def files(self) -> Saved:
        return self.saved


class LocalFleet:
    """One worker and the consensus in this process, without Ray, with the same bits as any number of Ray workers.

    Args:
        job: The job.
        gpu: Whether the model and the states are on a GPU.
        log: Records the messages that arrive in each round of an asynchronous run: all, unless a run is repeated.
        replay: The arrivals of the run that is to be repeated, if any.

    Attributes:
        worker: The worker, which hosts all shards.
        consensus: The consensus, which adds up its messages.
    """

    def __init__(
        self, job: Job, *, gpu: bool = False, log: Log = lambda round_, steps: None, replay: Arrivals | None = None
    ) -> None:
        self._job, self.worker = job, Worker(job, gpu=gpu, process_is_ours=False)
        self.worker.host(job.present)
        model = self.worker.model
        self.consensus = Consensus(job, model.layout, model.published(), model.unaveraged)
        self._log, self._replay = log, replay
        self._begun: _Begun | None = None
        self._past: deque[_Begun] = deque(maxlen=1 + (job.asynchronous.staleness if job.asynchronous else 0))
        self._lacks_standing = False  # whether the consensus must be sent the shards' last messages again

    def workers(self) -> list[WorkerInfo]:
        """See Fleet."""
        return [self.worker.info()]

    def tend(self) -> None:
        """See Fleet."""

    def resize(self, workers: int) -> None:
        """Do nothing, as there is only this process."""

    def change(self, job: Job) -> None:
        """See Fleet."""
        newcomers = set(job.present) - set(self._job.present)
        self._job = job
        self.worker.change(job)
        self.consensus.change(job)
        self.worker.host(sorted(newcomers))

    def published(self) -> np.ndarray:
        """See Fleet."""
        return self.consensus.publish()

    def slope(self, published: np.ndarray) -> Slope:
        """See Fleet."""
        shards = self._job.present
        return added(self.worker.slope(published, shards, shards), len(self._job.shards), shards)

    def start(self, job: Job) -> None:
        """See Fleet."""
        self.change(job)
        model = job.build_model()
        self.consensus = Consensus(job, model.layout, model.published(), model.unaveraged)

    def begin(self, spec: RoundSpec, settle: bool = False) -> None:
        """See Fleet."""
        published = self.consensus.publish()
        self._begun = _Begun(spec, published.copy() if self._replay else published)
        self._past.append(self._begun)

    def is_settled(self) -> bool:
        """See Fleet; here a report begins when its message arrives."""
        return True

    def end(self) -> RoundReport:
        """See Fleet."""
        if self._begun is None:
            raise RuntimeError("end() without begin()")
        this, self._begun = self._begun, None
        if self._lacks_standing and self._job.messages_stand:
            self.consensus.add(this.spec.number, -1, self.worker.repeat(self._job.present, diagnose=False))
        self._lacks_standing = False
        reports = []
        for ticket, (version, shards) in enumerate(self._steps(this.spec.number)):
            begun = next((past for past in self._past if past.spec.number == version), None)
            if begun is None:
                raise PisaError(
                    f"round {this.spec.number} of the log has a step at w of round {version}, which is before the "
                    "checkpoint that this run was resumed from: start the repetition anew."
                )
            diagnose = this.spec.diagnose and begun is this
            payload, report = self.worker.step(replace(begun.spec, diagnose=diagnose), begun.published, shards)
            self.consensus.add(this.spec.number, ticket, payload)
            reports.append(report)
        if self._job.asynchronous:
            self._log(
                this.spec.number, [(i, version) for version, shards in self._steps(this.spec.number) for i in shards]
            )
        _, consensus = self.consensus.update(this.spec)
        return RoundReport.of(reports, consensus, bytes_sent=0)

    def _steps(self, round_: int) -> list[tuple[int, list[int]]]:
        """Return the shards whose messages arrive in a round, by the version of w, in the order of arrival."""
        if self._replay is None:
            return [(round_, list(self._job.present))]
        if round_ not in self._replay:
            raise PisaError(f"the log that is repeated ends before round {round_}: use rounds {round_ - 1}.")
        versions = groupby(self._replay[round_], key=lambda step: step[1])
        return [(version, [i for i, _ in steps]) for version, steps in versions]

    def fork(self, round_: int) -> Fork:
        """See Fleet."""
        states = deepcopy(self.worker.snapshot(self._job.present))
        return Fork(round_, states, self.consensus.publish().copy())

    def back(self, fork: Fork) -> None:
        """See Fleet."""
        self.worker.host(self._job.present, fork.states)
        self.consensus.restore(fork.published, fork.round + 1)
        self._lacks_standing = True

    def evaluate(self, split: str, *, at: np.ndarray | None = None, rows: int | None = None) -> Pending:
        """See Fleet."""
        blocks = self._job.blocks(split, rows)
        at = self.consensus.publish() if at is None else at
        sums = self.worker.evaluate(at, split, blocks, rows) if blocks else {}
        return lambda: sums

    def evaluate_shards(self, *, held_out: bool, at: np.ndarray | None = None, rows: int | None = None) -> Pending:
        """See Fleet."""
        at = self.consensus.publish() if at is None else at
        sums = self.worker.evaluate_shards(at, self._job.present, held_out=held_out, rows=rows)
        return lambda: sums

    def export(self, rounds: int, path: str) -> str:
        """See Fleet."""
        return self.worker.export(self.consensus.publish(), rounds, path)

    def save(self, folder: Folder) -> Saving:
        """See Fleet; all files are written when this returns."""
        return _Written(
            {
                "consensus": write_published(folder, "consensus.safetensors", self.consensus.publish()),
                "shards": [write_states(folder, "shards-0.safetensors", self.worker.snapshot(self._job.present))],
            }
        )

    def restore(self, folder: Folder, saved: Mapping[str, Any], rounds: int) -> None:
        """See Fleet."""
        self.worker.host(self._job.present, StoredStates(folder, saved["shards"]))
        self._lacks_standing = True
        size = len(self.consensus.publish())
        self.consensus.restore(read_published(folder, saved["consensus"], size), rounds + 1)

    def close(self) -> None:
        """See Fleet."""
