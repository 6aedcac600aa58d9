"""What lost shards are rebuilt from: their states after some round, and the w's of all rounds since.

A snapshot is the return value of a worker's call, so the driver owns it and it outlives the worker's process; if it
lies on another node it is copied to the driver's, so that it outlives that node too. It takes the place of the one
before only when all its parts are safe.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pisa_ray.actors.calls import GoneError, answer, is_ready
from pisa_ray.actors.crew import Member
from pisa_ray.engine.reports import PastRound, RoundSpec
from pisa_ray.errors import StatesLostError

#: Largest share of the training time that snapshots may cost, and bounds of the rounds between two of them.
SHARE, FIRST_PERIOD, LONGEST_PERIOD = 0.01, 10, 50


@dataclass
class RoundRecord:
    """A round and all that it takes to step through it again.

    Attributes:
        spec: The round.
        published: Reference to the vector that it began with.
        reporters: The shards whose steps at that vector count: a late one is added, one that was undone is removed.
    """

    spec: RoundSpec
    published: Any
    reporters: set[int] = field(default_factory=set)

    def past(self) -> PastRound:
        """Return what a worker gets of the round beside the published vector."""
        return PastRound(replace(self.spec, diagnose=False), frozenset(self.reporters))


@dataclass
class Part:
    """One worker's part of a snapshot.

    Attributes:
        shards: The shards whose states it has.
        states: Reference to them, where they are safe.
        source: Reference to them, on the worker's node.
        began: Reference to the time at which it was begun, by the worker's clock.
        member: The worker.
    """

    shards: tuple[int, ...]
    states: Any
    source: Any
    began: Any
    member: Member


class Snapshots:
    """The last safe snapshot, the one that is becoming safe, and the rounds since.

    Attributes:
        round: The round after which the last safe states were taken.
        origins: References to them by shard; empty: they are the initial ones.
        window: The rounds since.
        joined: Shards that have joined since those states were taken, at their initial states.
        longest: Most rounds between two snapshots that memory has room for, as their w's stay there.
        period: Rounds between two snapshots, chosen so that they cost no more than their share of the time.
        cost: Seconds by which the last one delayed a worker's next step.
        urgent: Whether the next one is due at once.
    """

    def __init__(self) -> None:
        self.round = 0
        self.origins: dict[int, Any] = {}
        self.window: list[RoundRecord] = []
        self.joined: set[int] = set()
        self.period, self.longest = FIRST_PERIOD, LONGEST_PERIOD
        self.cost = 0.0
        self._coming: tuple[int, list[Part]] | None = None
        self._measured, self.urgent = True, False

    def limit(self, rounds: int) -> None:
        """Set the number of rounds between two snapshots that memory has room for."""
        self.longest, self.period = rounds, min(self.period, rounds)

    def rest_on(self, round_: int, origins: dict[int, Any]) -> None:
        """Rest on a checkpoint's states of all shards, after a round; it may be removed, so not for long."""
        self.round, self.origins, self.window, self._coming = round_, origins, [], None
        self.urgent = True

    def remember(self, record: RoundRecord) -> None:
        """Take note of a round that is done."""
        self.window.append(record)

    def forget(self, shards: Collection[int]) -> None:
        """Undo what some shards have done since their last safe states."""
        self.settle(None)
        self._coming = None  # a snapshot that is not safe yet would bring those steps back
        for record in self.window:
            record.reporters.difference_update(shards)

    def due(self, round_: int) -> bool:
        """Return whether it is time for another snapshot, after a round."""
        return round_ > 0 and self._coming is None and (self.urgent or round_ - self.round >= self.period)

    def take(self, round_: int, members: Sequence[Member], consensus: Any, node: str) -> list[Part]:
        """Ask all workers for their shards' states after a round; calls made later run later.

        Args:
            round_: The round that is done.
            members: The workers.
            consensus: The actor that copies what lies on other nodes.
            node: Ray's id of the driver's node.
        """
        parts = []
        for member in members:
            if not member.shards:
                continue
            source, began = member.actor.snapshot.options(num_returns=2).remote(tuple(member.shards))
            states = source if member.node == node else consensus.copy.remote(source)
            parts.append(Part(tuple(member.shards), states, source, began, member))
        if self._coming is None:  # one at a time, or none would ever become safe
            self._coming, self._measured = (round_, parts), False
        return parts

    def settle(self, round_seconds: float | None) -> None:
        """Take over the snapshot that was under way, if it is safe by now, and forget what it replaces.

        Args:
            round_seconds: What a round takes, to choose the time of the next; None: it stays as it is.
        """
        if self._coming is None:
            return
        round_, parts = self._coming
        try:
            if round_seconds is not None:
                self._measure(parts, round_seconds)
            if not is_ready([part.states for part in parts]):
                return
            for part in parts:
                answer(part.states, "take a snapshot")
        except GoneError:
            self._coming = None  # the old one stays
            return
        self._coming, self.urgent = None, False
        self.round, self.origins = round_, {i: part.states for part in parts for i in part.shards}
        self.joined -= set(self.origins)
        self.window = [record for record in self.window if record.spec.number > round_]

    def _measure(self, parts: list[Part], round_seconds: float) -> None:
        """Measure what a snapshot costs: the time from its beginning on a worker to the beginning of the next step."""
        if self._measured or not is_ready([part.began for part in parts]):
            return
        costs = [part.member.stepped - float(answer(part.began, "take a snapshot")) for part in parts]
        if min(costs) <= 0:
            return  # no step has followed yet
        self._measured, self.cost = True, max(costs)
        self.period = min(self.longest, max(1, math.ceil(self.cost / (SHARE * max(round_seconds, 1e-6)))))

    def sources(self, shards: Sequence[int]) -> list[Any]:
        """Return references to the last safe states of some shards, each once; none: they are the initial ones.

        Raises:
            StatesLostError: A shard has none.
        """
        missing = set(shards) - set(self.origins) - self.joined
        if self.round and missing:
            raise StatesLostError(f"there is no snapshot of shards {sorted(missing)}.")
        return list({id(o): o for i in shards if (o := self.origins.get(i)) is not None}.values())
