"""The fleet as Ray actors: rounds that go on when processes die, come or go.

A round is submitted whole: every worker's step, an add per worker whose argument is that worker's messages, and the
update that takes all adds. When a process is lost, its messages that have not arrived are fenced off, its shards are
rebuilt on other workers from their last safe states and the w's since, and only what is missing is submitted again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from pisa_ray.actors import processes
from pisa_ray.actors.assignment import Assignment
from pisa_ray.actors.asynchronous import AsynchronousRounds
from pisa_ray.actors.calls import GoneError, answer, try_again
from pisa_ray.actors.core import Core, FleetState, start_consensus
from pisa_ray.actors.crew import Crew, Member, Tell
from pisa_ray.actors.deaths import Deaths
from pisa_ray.actors.elastic import Elastic, Staffing
from pisa_ray.actors.evaluation import Evaluation
from pisa_ray.actors.recovery import Recovery
from pisa_ray.actors.rounds import Rounds, SynchronousRounds
from pisa_ray.actors.saving import RaySaving
from pisa_ray.actors.session import RayResources
from pisa_ray.actors.sites import NOWHERE, Sites
from pisa_ray.actors.snapshots import LONGEST_PERIOD, Snapshots
from pisa_ray.algorithm import Slope
from pisa_ray.engine.asynchrony import Arrivals
from pisa_ray.engine.consensus import read_published
from pisa_ray.engine.files import Folder
from pisa_ray.engine.fleet import Fork, Log, Pending, Saving
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import RoundReport, RoundSpec, WorkerInfo
from pisa_ray.engine.states import StoredStates
from pisa_ray.errors import StatesLostError, WorkerDiedError

#: Share of a node's object store that the w's for replay may take.
STORE_SHARE = 0.2


class RayFleet:
    """Workers that host all shards of a job, and the consensus, as Ray actors; see Fleet. Ray must be connected.

    Args:
        job: What is trained.
        staffing: How many workers are wanted, and how many deaths there have been.
        resources: What each worker reserves.
        tell: Takes note of events.
        stop_requested: Whether the user asked to stop; looked at while waiting for workers.
        sites: Where shards are pinned; while the site of a shard is away, it is not waited for.
        log: Takes note of the arrivals of an asynchronous round, before they change w.
        replay: The arrivals of an asynchronous run that is to be repeated; None: none is repeated.

    Attributes:
        state: What changes while it is at work.
        crew: The worker processes.
        elastic: How many there are to be.
        assignment: Which of them hosts which shards.
        snapshots: The shards' last safe states.
        rounds: The rule of its rounds.
        evaluation: Asks the workers.

    Raises:
        PisaError: Too few workers start.
    """

    def __init__(
        self,
        job: Job,
        staffing: Staffing,
        resources: RayResources,
        tell: Tell = lambda kind, **fields: None,
        stop_requested: Callable[[], bool] = lambda: False,
        sites: Sites = NOWHERE,
        log: Log = lambda round_, steps: None,
        replay: Arrivals | None = None,
    ) -> None:
        node, wanted = ray.get_runtime_context().get_node_id(), staffing.wanted
        self.snapshots = Snapshots()
        self.snapshots.urgent = bool(sites)  # what is not safe when a site goes away is lost
        self.crew = Crew(job, resources, tell, sites, frozen_after=wanted.frozen_after, exact=wanted.exact)
        self.assignment = Assignment(job, self.crew, sites, self.snapshots, tell)
        plans = self.assignment.plans
        self.elastic = Elastic(
            self.crew, staffing, resources, tell, stop_requested, plans, lambda: self.assignment.shards, sites
        )
        self.state = FleetState(job, *start_consensus(node, self.crew.reference, 1, None))
        self._core = core = Core(
            self.crew, self.elastic, self.assignment, self.snapshots, Deaths(staffing), sites, node, tell, self.state
        )
        try:
            self.elastic.staff()
            core.wait([self.state.consensus.ready], "start")
            self._size = len(ray.get(self.state.published))
            nodes: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]
            store = float(ray.cluster_resources().get("object_store_memory", 0)) / max(len(nodes), 1)  # type: ignore[no-untyped-call]
            self.snapshots.limit(max(1, min(LONGEST_PERIOD, int(STORE_SHARE * store / (4 * self._size)))))
        except GoneError as error:
            self.close()
            raise WorkerDiedError(f"the consensus process died while it was starting ({error}).") from error
        except BaseException:
            self.close()
            raise
        self.rounds: Rounds
        if job.asynchronous is None:
            self.rounds = SynchronousRounds(core)
        else:
            self.rounds = AsynchronousRounds(core, job.asynchronous, log, replay)
        self.recover = Recovery(core, self.rounds).recover
        self.evaluation = Evaluation(core, self.recover, self.rounds.evaluators)

    def workers(self) -> list[WorkerInfo]:
        """See Fleet."""
        return [m.info for m in self.crew.members if m.info is not None]

    def published(self) -> np.ndarray:
        """See Fleet."""
        array: np.ndarray = ray.get(self.state.published)
        return array

    # Rounds

    def tend(self) -> None:
        """See Fleet; where steps are under way, shards are moved and states set apart after the next round."""
        state = self.state
        self.snapshots.settle(self.rounds.usual_seconds())
        arrived, leaving = self.elastic.look()
        state.moving = state.moving or bool(arrived or leaving)
        if self.assignment.lost or state.suspect:
            self.recover()
        if not self.is_settled():
            return
        if state.moving or self.rounds.is_uneven():
            self._rebalance(leaving)
        while self.elastic.is_short():
            self.elastic.staff()
            self._rebalance([])
        state.moving = False
        if self.snapshots.due(state.done) and self.rounds.may_be_saved():
            self.take_snapshot()

    def begin(self, spec: RoundSpec, settle: bool = False) -> None:
        """See Fleet."""
        self.rounds.begin(spec, settle)

    def is_settled(self) -> bool:
        """See Fleet."""
        return self.rounds.is_settled()

    def end(self) -> RoundReport:
        """See Fleet."""
        return try_again(self.rounds.end, self.recover, "a round can be finished")

    def _rebalance(self, leaving: Sequence[Member]) -> None:
        """Cut the shards anew over all who stay, and move their states; then let go who leaves."""
        before = [m for m in self.crew.members if m.shards]
        # If all who were to stay have died meanwhile, the others do not leave yet.
        stay = [m for m in self.crew.members if m not in leaving] or self.crew.members
        self.assignment.reassign(stay, self.state.done)
        try:
            self._core.wait([adoption.done for adoption in self.assignment.adopting], "take in shards")
            self.assignment.note_arrivals()
        except GoneError:
            self.recover()
        for member in leaving:
            if member in self.crew.members and not member.shards:
                self.crew.dismiss(member)
                self._core.tell("worker_left", worker=member.id, pid=member.info.pid if member.info else None)
        if len(before) != len(self.crew.members):
            self._core.tell("resized", workers=len(self.crew.members), before=len(before))

    # Other jobs and other sizes

    def resize(self, workers: int) -> None:
        """See Fleet."""
        self.elastic.resize(workers)

    def change(self, job: Job) -> None:
        """See Fleet."""
        self.state.job = job
        self.assignment.change(job)
        self.elastic.refit()

        def attempt() -> None:
            # A repeated call does no harm to a process that has the job already, or has begun with it.
            asked = [*self.crew.change(job), self.state.consensus.actor.change.remote(self.crew.reference)]
            self._core.wait(asked, "go on with other shards")

        try_again(attempt, self.recover, "shards can join or leave")
        self.recover()  # newcomers are hosted by nobody yet, as lost shards are
        self.rounds.change(job)

    def start(self, job: Job) -> None:
        """See Fleet."""
        self.change(job)
        state = self.state
        state.published, ready = state.consensus.actor.set_up.options(num_returns=2).remote(
            self.crew.reference, 1, None
        )
        self._wait_for_consensus(ready, "start", "starting")

    def _wait_for_consensus(self, ready: Any, doing: str, dying: str) -> None:
        try:
            self._core.wait([ready], doing)
        except GoneError as error:
            raise StatesLostError(f"the consensus process died while it was {dying} ({error}).") from error

    # Evaluation

    def evaluate(self, split: str, *, at: np.ndarray | None = None, rows: int | None = None) -> Pending:
        """See Fleet."""
        return self.evaluation.evaluate(split, at, rows)

    def evaluate_shards(self, *, held_out: bool, at: np.ndarray | None = None, rows: int | None = None) -> Pending:
        """See Fleet."""
        return self.evaluation.evaluate_shards(held_out, at, rows)

    def slope(self, published: np.ndarray) -> Slope:
        """See Fleet."""
        return self.evaluation.slope(published)

    # States

    def take_snapshot(self) -> list[Any]:
        """Ask all workers for their shards' states; return the parts that are on their way."""
        core, state = self._core, self.state
        return self.snapshots.take(state.done, self.crew.members, state.consensus.actor, core.node)

    def fork(self, round_: int) -> Fork:
        """See Fleet; references to safe states."""

        def attempt() -> Fork:
            parts = self.take_snapshot()
            self._core.wait([part.states for part in parts], "take a snapshot")
            states = {i: part.states for part in parts for i in part.shards}
            if len(states) < len(self.assignment.shards):
                raise GoneError("some shards are hosted by nobody")
            return Fork(round_, states, self.state.published)

        return try_again(attempt, self.recover, "their states can be kept")

    def back(self, fork: Fork) -> None:
        """See Fleet; each worker goes on with the shards that it has."""
        state = self.state
        state.done, state.published, state.lacks_standing = fork.round, fork.published, True
        self.assignment.rewind(fork.round, fork.states)
        restored = state.consensus.actor.restore.remote(fork.published, fork.round + 1, next(state.tickets))
        with suppress(GoneError):  # the next recovery, between two rounds, looks into it
            self._core.wait([restored], "go back")

    def export(self, rounds: int, path: str) -> str:
        """See Fleet."""

        def attempt() -> str:
            reference = self.crew.members[0].actor.call.remote("export", self.state.published, rounds, path)
            self._core.wait([reference], "save the model")
            return str(answer(reference, "save the model"))

        return try_again(attempt, self.recover, "the model can be saved")

    def save(self, folder: Folder) -> Saving:
        """See Fleet."""
        return RaySaving(folder, self.take_snapshot(), self.state.published, self.crew, self._core.wait, self.recover)

    def restore(self, folder: Folder, saved: Mapping[str, Any], rounds: int) -> None:
        """See Fleet."""
        state, shards = self.state, self.assignment.shards
        state.done = rounds
        state.published = ray.put(read_published(folder, saved["consensus"], self._size))
        ready = state.consensus.actor.set_up.remote(self.crew.reference, rounds + 1, state.published)
        self._wait_for_consensus(ready, "load a checkpoint", "loading a checkpoint")
        self.assignment.lose(shards)
        self.snapshots.rest_on(rounds, dict.fromkeys(shards, StoredStates(folder, saved["shards"])))
        state.lacks_standing = True
        self.rounds.restore(saved)

    def close(self) -> None:
        """See Fleet."""
        state = self.state
        self.crew.close()
        processes.end(state.consensus.actor)
        state.round, self.assignment.adopting, state.published = (
            None,
            [],
            None,
        )  # so that Ray can free what they refer to
        with suppress(RayError):
            self.elastic.close()
