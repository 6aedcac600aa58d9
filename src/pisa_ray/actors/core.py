"""What the parts of a fleet share: its processes, the assignment of shards, and the state of the run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from pisa_ray.actors import processes
from pisa_ray.actors.assignment import Assignment
from pisa_ray.actors.calls import GoneError, answer
from pisa_ray.actors.crew import PULSE, Crew, Member, Process, Tell
from pisa_ray.actors.deaths import Deaths
from pisa_ray.actors.deliveries import Delivery, Round
from pisa_ray.actors.elastic import Elastic
from pisa_ray.actors.sites import Sites
from pisa_ray.actors.snapshots import RoundRecord, Snapshots
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import WorkerReport
from pisa_ray.errors import PisaError

#: Seconds that any answer may take from a process that is alive.
LONGEST_CALL = 3600.0


@dataclass
class FleetState:
    """What changes while a fleet is at work.

    Attributes:
        job: The job as it is now.
        consensus: The consensus process.
        published: Reference to the vector published last.
        round: The round that has begun and not ended.
        done: The last round that has ended.
        suspect: Whether something was lost, and no recovery has looked into it yet.
        moving: Whether shards are to be moved at the next opportunity.
        lacks_round: Whether the consensus is new and lacks the messages of the round under way.
        lacks_standing: Whether the consensus is new and lacks the messages that stand from earlier rounds.
        tickets: The numbers of deliveries, none of which is used twice.
    """

    job: Job
    consensus: Process
    published: Any
    round: Round | None = None
    done: int = 0
    suspect: bool = False
    moving: bool = False
    lacks_round: bool = False
    lacks_standing: bool = False
    tickets: Iterator[int] = field(default_factory=itertools.count)


def start_consensus(node: str, job: Any, round_: int, published: Any) -> tuple[Process, Any]:
    """Start a consensus process.

    Args:
        node: Ray's id of its node.
        job: Reference to the job.
        round_: The round that it is to begin.
        published: Reference to the vector of that round; None: the initial one.

    Returns:
        The process, and a reference to the vector.
    """
    handle = processes.start_consensus(node)
    made, ready = handle.set_up.options(num_returns=2).remote(job, round_, published)
    return Process(handle, ready), made if published is None else published


@dataclass(frozen=True)
class Core:
    """The parts of a fleet that its rounds, its recovery and its evaluations share.

    Attributes:
        crew: The worker processes.
        elastic: How many there are to be.
        assignment: Which of them hosts which shards.
        snapshots: The shards' last safe states.
        deaths: The deaths of processes.
        sites: Where shards are pinned.
        node: Ray's id of the driver's node.
        tell: Takes note of events.
        state: What changes.
    """

    crew: Crew
    elastic: Elastic
    assignment: Assignment
    snapshots: Snapshots
    deaths: Deaths
    sites: Sites
    node: str
    tell: Tell
    state: FleetState

    def wait(self, references: Sequence[Any], doing: str) -> None:
        """Wait until calls are answered.

        Raises:
            GoneError: A call was lost, or a process gives no pulse.
            PisaError: A call raised, or there was no answer for too long.
        """
        waiting, until = list(references), time.monotonic() + LONGEST_CALL
        while waiting:
            done, waiting = self.look(waiting, PULSE, doing)
            if not done and time.monotonic() > until:
                raise PisaError(f"a worker did not {doing} within {LONGEST_CALL:g} s, though its process is alive.")

    def look(self, references: list[Any], seconds: float, doing: str) -> tuple[list[Any], list[Any]]:
        """Return those of some calls that have been answered, after so many seconds at most, and the others.

        Raises:
            GoneError: A call was lost, or there is no answer and a process gives no pulse.
            PisaError: A call raised.
        """
        done, others = ray.wait(references, timeout=seconds, fetch_local=False)
        try:
            for reference in done:
                answer(reference, doing)
            if not done and not self.crew.feel([self.state.consensus]):
                raise GoneError("no pulse")
        except GoneError:
            self.state.suspect = True
            raise
        return done, others

    def note(self, delivery: Delivery, report: WorkerReport) -> None:
        """Take note of a worker's pace."""
        delivery.member.stepped = report.began
        self.assignment.balance.note(delivery.member, list(report.shards), report.seconds)

    def end_round(self, round_: Round, record: RoundRecord) -> None:
        """Take note of what a round leaves behind."""
        state = self.state
        self.snapshots.remember(record)
        state.published, state.done, state.round, state.lacks_standing = (
            round_.published,
            round_.spec.number,
            None,
            False,
        )
        self.deaths.end_round()
        try:
            self.assignment.note_arrivals()
        except GoneError:  # the next recovery, between two rounds, looks into it
            state.suspect = True

    def host_away(self, member: Member, shards: Sequence[int]) -> None:
        """Have a worker elsewhere store shards whose site is away, at their last safe states.

        What they have done since is undone; the worker gets the messages that the consensus has of them.
        """
        self.snapshots.forget(shards)
        said = None if self.state.lacks_standing else self.state.consensus.actor.said.remote(tuple(shards))
        self.assignment.host_away(member, shards, said)
