"""What is under way between processes: deliveries of messages in a round, and shards on their way to a worker."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from pisa_ray.actors.crew import Member
from pisa_ray.engine.reports import RoundSpec


@dataclass
class Delivery:
    """A step of some shards on a worker, and the adding of its messages to the round's sum.

    Attributes:
        member: The worker.
        shards: The shards that were asked for a step.
        payload: Reference to their messages.
        report: Reference to the worker's report.
        added: Reference to whether the consensus counts them; None: it has not been asked to add them yet.
        accepted: Whether it counts them; looked at only when the worker is dead.
        absent: Shards that could not report when the step was asked for.
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
    """Shards that a worker is taking in, from another worker or from safe states.

    Attributes:
        member: The worker.
        shards: The shards.
        done: Reference to the answer.
        since: When it was asked, by this process's clock.
        rounds: Rounds that it steps through again.
        moved: Whether their states come from another worker, so that they are looked for again if they are lost.
    """

    member: Member
    shards: tuple[int, ...]
    done: Any
    since: float
    rounds: int = 0
    moved: bool = False


@dataclass
class Round:
    """A round under way.

    Attributes:
        spec: The round.
        undone: Shards whose state has gone back to an earlier round since.
        deliveries: The deliveries by ticket.
        published: Reference to the vector that it makes.
        summary: Reference to the consensus' report; None: the update has not been asked for.
    """

    spec: RoundSpec
    undone: set[int] = field(default_factory=set)
    deliveries: dict[int, Delivery] = field(default_factory=dict)
    published: Any = None
    summary: Any = None

    def covered(self) -> set[int]:
        """Return the shards whose messages are under way or have arrived."""
        return {i for delivery in self.deliveries.values() for i in delivery.shards}
