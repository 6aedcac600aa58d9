"""What is under way: a round's deliveries of messages, and shards on their way to a worker."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from pisa_ray.actors.crew import Member


@dataclass
class Delivery:
    """A step of some shards on a worker, and the adding of its messages to the round's sum.

    Attributes:
        accepted: Whether it has been counted; known only of a dead worker's.
        absent: Shards that could not report when it was asked for.
    """

    member: Member
    shards: tuple[int, ...]
    payload: Any
    report: Any
    added: Any
    accepted: bool = False
    absent: Collection[int] = frozenset()


@dataclass
class Adoption:
    """A worker is taking in shards, from another worker or from safe states."""

    member: Member
    shards: tuple[int, ...]
    done: Any
    since: float
    rounds: int = 0
    moved: bool = False


@dataclass
class Round:
    """A round under way: deliveries by ticket, and the update that waits for them.

    Attributes:
        forgotten: Shards whose state has gone back to an earlier round since.
    """

    number: int
    sigma: float
    diagnose: bool
    forgotten: set[int] = field(default_factory=set)
    deliveries: dict[int, Delivery] = field(default_factory=dict)
    published: Any = None
    summary: Any = None

    def covered(self) -> set[int]:
        """Shards whose messages are under way or have arrived."""
        return {i for delivery in self.deliveries.values() for i in delivery.shards}
