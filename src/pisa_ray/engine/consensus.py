"""The consensus, which adds messages as they arrive and makes the next w; pisa_ray.actors makes it a Ray actor."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from pisa_ray.algorithm import Layout, Message, StandingSum, TreeSum, trimmed
from pisa_ray.algorithm.method import Update
from pisa_ray.engine.files import Folder
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import borrowed_tensor
from pisa_ray.engine.reports import ConsensusReport, Payload, RoundSpec


class Consensus:
    """Holds the published vector: w, the model's floating buffers, the method's memory, [p + b + e] float32.

    If duals are clipped, the last entry of the memory is their limit. If the messages of absent shards stay in the sum,
    or messages are compared, it holds all messages, too. A consensus that takes its place, or begins with a round after
    the first, must be sent them again.

    Deliveries are keyed by round and ticket, so that none counts twice and none of another round counts at all: a
    worker that was given up may wake up and send, and a call that was reported as failed may have run.

    Args:
        job: The job, which has the method and the reporters of each round.
        layout: Where the parameters lie in w.
        initial: w^init and the initial buffers, [p + b].
        unaveraged: The number of last buffers that are not averaged; those of the first shard are taken.
    """

    def __init__(self, job: Job, layout: Layout, initial: np.ndarray, unaveraged: int = 0) -> None:
        self._job, self._layout, self._unaveraged = job, layout, unaveraged
        self._sum = self._empty_sum()
        self._duals = self._dual_tree()
        w, buffers = torch.tensor(initial).tensor_split([layout.size])
        self._rows = job.rows(layout, len(buffers))
        limit = torch.zeros(1 if job.clips else 0)  # the limit of the first round is 0
        memory = [job.method.initial_memory(layout), limit]
        self._published = torch.cat([job.method.first_consensus(w, layout), buffers, *memory])
        self._memory = len(memory[0])
        self._next = torch.empty_like(self._published)  # the two are swapped every round
        self._round, self._since = 1, -1
        self._accepted: set[int] = set()
        self._fenced: set[int] = set()
        self._report: ConsensusReport | None = None
        self._seconds = 0.0
        self._begin(1)

    def _empty_sum(self) -> TreeSum | StandingSum:
        return (StandingSum if self._job.messages_stand else TreeSum)(len(self._job.shards))

    def _dual_tree(self) -> TreeSum:
        tree = TreeSum(len(self._job.shards))
        tree.expect(self._job.present)
        return tree

    def change(self, job: Job) -> None:
        """Go on, between two rounds, with another job, which differs in shards that have joined or left.

        Standing messages keep their weights; those of removed shards are forgotten. A repeated call changes nothing.
        """
        self._job = job
        if isinstance(self._sum, StandingSum):
            self._sum.grow(len(job.shards))
            for i in job.removed.intersection(self._sum.heard()):
                self._sum.drop(i)
        else:
            self._sum = TreeSum(len(job.shards))
        self._duals = self._dual_tree()
        self._begin(self._round)

    def publish(self) -> np.ndarray:
        """Return the published vector, [p + b + e], a view that is overwritten by the next but one."""
        array: np.ndarray = self._published.numpy()
        return array

    def add(self, round_: int, ticket: int, payload: Payload, *, duals: bool = True) -> bool:
        """Add a delivery of messages, in any order.

        Args:
            round_: The round they belong to.
            ticket: The delivery's number, never used for another.
            payload: The messages.
            duals: Whether its duals are this round's; a step that began in an earlier round may have others.

        Returns:
            Whether it counts; it does not if it is of another round, was added before, or is fenced off.
        """
        if round_ != self._round or ticket < self._since or ticket in self._accepted or ticket in self._fenced:
            return False
        start = time.perf_counter()
        for node, array in payload.messages:
            row = borrowed_tensor(array)
            if isinstance(self._sum, StandingSum):
                self._sum.put(node[1], row)
            else:
                self._sum.add(node, row)
        for node, array in payload.duals if duals else ():
            self._duals.add(node, borrowed_tensor(array))
        self._accepted.add(ticket)
        self._seconds += time.perf_counter() - start
        return True

    def heard(self) -> list[int]:
        """Return the shards whose messages stand, in order; none if messages do not outlive their round."""
        return list(self._sum.heard()) if isinstance(self._sum, StandingSum) else []

    def said(self, shards: Collection[int]) -> dict[int, np.ndarray]:
        """Return the standing messages of those of some shards that have sent any, [width] each."""
        assert isinstance(self._sum, StandingSum)  # noqa: S101  (for the type checker)
        return {i: self._sum.row(i).numpy().copy() for i in self._sum.heard() if i in shards}

    def fence(self, round_: int, ticket: int) -> bool:
        """Refuse a delivery from now on, and return whether it was counted before, as all of a complete round are."""
        if round_ < self._round:
            return True
        self._fenced.add(ticket)
        return ticket in self._accepted

    def refuse(self, tickets: Collection[int]) -> None:
        """Refuse deliveries from now on, and forget this round's duals: all messages and duals will be sent anew."""
        self._fenced.update(tickets)
        self._duals.clear()

    def update(self, spec: RoundSpec, tickets: Collection[int] = ()) -> tuple[np.ndarray, ConsensusReport]:
        """Make and publish the next w, once all messages of the round are in; a repeated call gives the same again.

        Args:
            spec: The round.
            tickets: Deliveries that must have been counted.

        Raises:
            ValueError: If one of them has been fenced off since this update was asked for.

        Returns:
            What `publish` returns, and the report.
        """
        if spec.number < self._round and self._report is not None:
            return self.publish(), self._report
        if not self._accepted.issuperset(tickets):
            raise ValueError(f"an update of round {spec.number} waits for deliveries that are fenced off")
        start = time.perf_counter()
        method, p, b, old, new = (
            self._job.method,
            self._rows.parameters,
            self._rows.buffers,
            self._published,
            self._next,
        )
        total = self._total()
        residual = None
        if spec.diagnose and method.duals and self._duals.is_complete():  # in an asynchronous round it may not be
            residual = _norm(self._duals.total() / total.weight - method.shrinkage(old[:p], self._layout))
        w = new[:p]
        torch.div(total.buffers, total.weight, out=new[p : p + b])
        if self._unaveraged:
            new[p + b - self._unaveraged : p + b] = self._first_shard(total).buffers[-self._unaveraged :]
        new[p + b :] = old[p + b :]
        memory, limit = new[p + b :].tensor_split([self._memory])
        method.update(Update(total, old[:p], spec.sigma, self._layout, w), memory)
        if (robust := self._job.robust) is not None and robust.clips:
            norms = (total.norms / torch.tensor(self._job.alpha)).tolist()
            limit.fill_(robust.limit([norms[i] for i in self.heard() or self._job.present]))
        numbers = {}
        if spec.diagnose:
            numbers = {"move": _norm(w - old[:p]), "residual": residual, "regulariser": self._regulariser(old[:p])}
        self._begin(self._round + 1)
        self._published, self._next = new, old
        finite = math.isfinite(float(w.sum()))
        seconds, self._seconds = self._seconds + time.perf_counter() - start, 0.0
        self._report = ConsensusReport(finite, seconds, **numbers)
        return self.publish(), self._report

    def _regulariser(self, w: torch.Tensor) -> float:
        return float(w.double().dot(self._job.method.shrinkage(w, self._layout).double())) / 2

    def _total(self) -> Message:
        """Return the sum of all messages, or the means of those that a robust consensus keeps."""
        robust = self._job.robust
        if robust is None or robust.clips or isinstance(self._sum, TreeSum):
            return self._rows.split(self._sum.total())
        speakers = self._speakers()
        said = [self._rows.split(self._sum.row(i)) for i in speakers]
        penalties = self._job.method.penalties(self._layout)
        spread = [replace(message, M=penalties.spread(message.M)) for message in said]
        return trimmed(spread, robust.dropped(len(speakers)))

    def _speakers(self) -> Sequence[int]:
        return self.heard() if self._job.method.remembers else self._job.reporters(self._round)

    def _first_shard(self, total: Message) -> Message:
        """Return the message with the unaveraged buffers: the first reporter's, or the sum if no other one has any."""
        if isinstance(self._sum, TreeSum):
            return total
        return self._rows.split(self._sum.row(self._speakers()[0]))

    def restore(self, published: np.ndarray, round_: int, since: int = -1) -> np.ndarray:
        """Take over the published vector with which a round begins, perhaps again, and forget all messages.

        Args:
            published: The vector, [p + b + e].
            round_: The round.
            since: The first ticket that may count, as deliveries with lower ones were made before.

        Returns:
            The vector.
        """
        self._published.copy_(borrowed_tensor(published))
        self._sum, self._since, self._report = self._empty_sum(), since, None
        self._begin(round_)
        return self.publish()

    def _begin(self, round_: int) -> None:
        self._round = round_
        if isinstance(self._sum, TreeSum):
            self._sum.clear()
            self._sum.expect(self._job.reporters(round_))
        self._duals.clear()
        self._accepted.clear()
        self._fenced.clear()


def write_published(folder: Folder, name: str, published: np.ndarray) -> dict[str, object]:
    """Write a published vector to a file of a checkpoint; return its entry in the manifest."""
    return folder.write_tensors(name, {"published": published})


def read_published(folder: Folder, entry: Mapping[str, object], size: int) -> np.ndarray:
    """Read the published vector of a checkpoint, [size] = [p + b + e].

    Raises:
        ConfigError: If the file has no such vector, or one of another size.
    """
    expected = {"published": torch.empty(size)}
    array: np.ndarray = folder.read_tensors(entry, expected, expected)["published"].numpy()
    return array


def _norm(x: torch.Tensor) -> float:
    return float(x.double().norm())
