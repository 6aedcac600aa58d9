"""The fleet as Ray actors: rounds that go on when processes die, come or go.

A round is submitted whole: every worker's step, an add per worker whose argument is that worker's messages, and the
update that takes all adds. When a process is lost, its messages that have not arrived are fenced off, its shards are
rebuilt on other workers from their last safe states and the w's since, and only what is missing is submitted again.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from pisa_ray.actors import processes
from pisa_ray.actors.calls import GoneError, answer, is_ready, loss
from pisa_ray.actors.crew import PULSE, Crew, Holder, Member, Tell
from pisa_ray.actors.elastic import Elastic, Staffing
from pisa_ray.actors.hosting import Hosting
from pisa_ray.actors.rounds import Delivery, Round
from pisa_ray.actors.saving import RaySaving
from pisa_ray.actors.session import RayResources
from pisa_ray.actors.sites import NOWHERE, Sites
from pisa_ray.actors.snapshots import LONGEST_PERIOD, RoundRecord, Snapshots
from pisa_ray.algorithm import Slope
from pisa_ray.engine.consensus import read_published
from pisa_ray.engine.files import Folder
from pisa_ray.engine.fleet import Fork, Pending, Saving, added
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import ConsensusReport, RoundReport, WorkerInfo, WorkerReport
from pisa_ray.engine.states import StoredStates
from pisa_ray.errors import PisaError, StatesLostError, WorkerDiedError

#: Seconds that any answer may take, and times that a shard's worker may die in one round.
PATIENCE, DEATHS_IN_A_ROUND = 3600.0, 3

#: Losses in a row that are recovered from, in one round or one recovery.
RECOVERIES = 100

#: Share of a node's object store that the w's kept for replay may take.
STORE_SHARE = 0.2


class RayFleet:
    """Workers that host all shards of a job, and the consensus, as Ray actors. Ray must be connected.

    Args:
        job: What is trained.
        staffing: How many workers are wanted, and what is put up with.
        resources: What each reserves.
        tell: Takes note of events.
        stop_requested: Whether the user asked to stop; looked at while waiting for workers.
        sites: Where shards are pinned.

    Attributes:
        crew: The worker processes.
        elastic: How many there are to be.
        hosting: Which of them hosts which shards.
        snapshots: The shards' last safe states.
        consensus: The consensus process.
        round: The round that has begun and not ended.
        done: The last round that has ended.
        suspect: Whether something was lost that nobody has looked into yet.
        untold: Whether the consensus is new and has not got the messages that stand from earlier rounds yet.

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
    ) -> None:
        self._job, self._staffing, self._tell, self._sites = job, staffing, tell, sites
        self._node = ray.get_runtime_context().get_node_id()
        self.snapshots = Snapshots()
        self.snapshots.urgent = bool(sites)  # what is not safe when a place dies is lost
        wanted = staffing.wanted
        self.crew = Crew(job, resources, tell, sites, frozen_after=wanted.frozen_after, exact=wanted.exact)
        self.hosting = Hosting(job, self.crew, sites, self.snapshots, tell)
        self.elastic = Elastic(
            self.crew, staffing, resources, tell, stop_requested, self.hosting.plans, lambda: self.shards, sites
        )
        self._tickets = itertools.count()
        self.round: Round | None = None
        self.done, self._began = 0, 0.0
        self._round_seconds: deque[float] = deque(maxlen=20)
        self.suspect = False
        self._unfed = False  # whether the consensus is new and has not got this round's messages yet
        self.untold = False
        self._deaths_here: Counter[int] = Counter()
        self._consensus_deaths = 0
        self.consensus, self._published = self._new_consensus(1, None)
        try:
            self.elastic.staff()
            self._wait([self.consensus.ready], "start")
            self._size = len(ray.get(self._published))
            nodes: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]
            store = float(ray.cluster_resources().get("object_store_memory", 0)) / max(len(nodes), 1)  # type: ignore[no-untyped-call]
            longest = max(1, min(LONGEST_PERIOD, int(STORE_SHARE * store / (4 * self._size))))
            self.snapshots.limit(longest)
        except GoneError as error:
            self.close()
            raise WorkerDiedError(f"the consensus process died while it was starting ({error}).") from error
        except BaseException:
            self.close()
            raise

    # What the round loop asks for

    @property
    def shards(self) -> Sequence[int]:
        """The shards of the problem as it is now."""
        return self.hosting.shards

    def workers(self) -> list[WorkerInfo]:
        """See Fleet."""
        return [m.info for m in self.crew.members if m.info is not None]

    def resize(self, workers: int) -> None:
        """See Fleet."""
        self.elastic.resize(workers)

    def change(self, job: Job) -> None:
        """See Fleet."""
        self._job = job
        self.hosting.change(job)
        self.elastic.refit()
        for _ in range(RECOVERIES):
            try:
                # Again if it is lost: who has been told already, or has begun with this job, may be told once more.
                told = self.crew.change(job)
                self._wait([*told, self.consensus.actor.change.remote(self.crew.reference)], "go on with other shards")
                self.recover()  # the newcomers are as good as lost: at their initial states, hosted by nobody
                return
            except GoneError:
                self.recover()
        raise StatesLostError("processes die faster than shards can join or leave.")

    def published(self) -> np.ndarray:
        """See Fleet."""
        array: np.ndarray = ray.get(self._published)
        return array

    def slope(self, published: np.ndarray) -> Slope:
        """See Fleet."""
        point = ray.put(published)
        for _ in range(RECOVERIES):  # again where shards have gone away or come back meanwhile
            absent = self.hosting.absent()
            speakers = [i for i in self.shards if i not in absent]
            ask = partial(_ask_slope, speakers=speakers)
            nodes = self.gather(speakers, self._at_home, ask, point)()
            with suppress(ValueError):
                return added(nodes, len(self._job.shards), speakers)
        raise StatesLostError("processes die faster than the loss can be looked at.")

    def start(self, job: Job) -> None:
        """See Fleet."""
        self.change(job)
        self._published, ready = self.consensus.actor.set_up.options(num_returns=2).remote(self.crew.reference, 1, None)
        try:
            self._wait([ready], "start")
        except GoneError as error:
            raise StatesLostError(f"the consensus process died while it was starting ({error}).") from error

    def tend(self) -> None:
        """See Fleet."""
        self.snapshots.settle(statistics.median(self._round_seconds) if self._round_seconds else 0.0)
        arrived, leaving = self.elastic.look()
        if self.hosting.lost or self.suspect:
            self.recover()
        if arrived or leaving or self.hosting.is_uneven(self.done):
            self._rebalance(leaving)
        while self.elastic.is_short():
            self.elastic.staff()
            self._rebalance([])
        if self.snapshots.due(self.done):
            self.take_snapshot()

    def begin(self, round_: int, sigma: float, diagnose: bool, settle: bool = False) -> None:
        """See Fleet; all steps of a round have come to their end with it."""
        self._began = time.monotonic()
        self.round = Round(round_, sigma, diagnose)
        for member in self.crew.members:
            if member.shards:
                self._deliver(self.round, member, member.shards)
        self._close(self.round)

    def is_settled(self) -> bool:
        """See Fleet."""
        return True

    def end(self) -> RoundReport:
        """See Fleet."""
        if self.round is None:
            raise RuntimeError("end() without begin()")
        round_ = self.round
        for _ in range(RECOVERIES):
            try:
                self._wait([d.report for d in round_.deliveries.values()], "finish the round")
                self._wait([round_.summary, *(a.done for a in self.hosting.adopting)], "finish the round")
                reports: list[WorkerReport] = [answer(d.report, "report") for d in round_.deliveries.values()]
                summary: ConsensusReport = answer(round_.summary, "finish the round")
                break
            except GoneError:
                self.recover()
        else:
            raise StatesLostError("processes die faster than a round can be finished.")
        for delivery, report in zip(round_.deliveries.values(), reports, strict=True):
            self._note(delivery, report)
        self._finished(round_, self._kept(round_))
        return RoundReport.of(reports, summary, sum(report.bytes_sent for report in reports))

    def fork(self, round_: int) -> Fork:
        """See Fleet; references to safe states."""
        for _ in range(RECOVERIES):
            parts = self.take_snapshot()
            states = {i: part.states for part in parts for i in part.shards}
            with suppress(GoneError):
                self._wait([part.states for part in parts], "take a snapshot")
                if len(states) == len(self.shards):
                    return Fork(round_, states, self._published)
            self.recover()
        raise StatesLostError("processes die faster than their states can be kept.")

    def back(self, fork: Fork) -> None:
        """See Fleet; each worker goes on with the shards that it has."""
        self.done, self._published, self.untold = fork.round, fork.published, True
        self.hosting.rewind(fork.round, fork.states)
        restored = self.consensus.actor.restore.remote(fork.published, fork.round + 1, next(self._tickets))
        with suppress(GoneError):  # between two rounds it is looked into
            self._wait([restored], "go back")

    def evaluate(self, split: str, *, at: np.ndarray | None = None, rows: int | None = None) -> Pending:
        """See Fleet."""
        blocks = self._job.blocks(split, rows)

        def shares(wanted: Sequence[int]) -> Iterable[tuple[Member, Sequence[int]]]:
            members = self.evaluators()[: len(wanted)]
            return [(member, wanted[k :: len(members)]) for k, member in enumerate(members)]

        return self.gather(
            blocks,
            shares,
            lambda m, w, part: m.actor.call.remote("evaluate", w, split, part, rows),
            None if at is None else ray.put(at),
        )

    def evaluators(self) -> list[Member]:
        """The workers that evaluate test rows."""
        return self.crew.members

    def evaluate_shards(self, *, held_out: bool, at: np.ndarray | None = None, rows: int | None = None) -> Pending:
        """See Fleet."""
        absent = self.hosting.absent()
        return self.gather(
            [i for i in self.shards if i not in absent],
            self._at_home,
            lambda m, w, part: m.actor.call.remote("evaluate_shards", w, part, held_out=held_out, rows=rows),
            None if at is None else ray.put(at),
        )

    def _at_home(self, wanted: Sequence[int]) -> Iterable[tuple[Member, Sequence[int]]]:
        """Who can say something of which of some shards."""
        still = set(wanted)
        parts = [(m, [i for i in self.hosting.at_home(m) if i in still]) for m in self.crew.members]
        return [(member, part) for member, part in parts if part]

    def export(self, rounds: int, path: str) -> str:
        """See Fleet."""
        for _ in range(RECOVERIES):
            try:
                reference = self.crew.members[0].actor.call.remote("export", self._published, rounds, path)
                self._wait([reference], "save the model")
                return str(answer(reference, "save the model"))
            except GoneError:
                self.recover()
        raise StatesLostError("processes die faster than the model can be saved.")

    def save(self, folder: Folder) -> Saving:
        """See Fleet."""
        return RaySaving(folder, self.take_snapshot(), self._published, self.crew, self._wait, self.recover)

    def restore(self, folder: Folder, saved: Mapping[str, Any], rounds: int) -> None:
        """See Fleet."""
        self.done = rounds
        self._published = ray.put(read_published(folder, saved["consensus"], self._size))
        ready = self.consensus.actor.set_up.remote(self.crew.reference, rounds + 1, self._published)
        try:
            self._wait([ready], "load a checkpoint")
        except GoneError as error:
            raise StatesLostError(f"the consensus process died while it was loading a checkpoint ({error}).") from error
        stored = StoredStates(folder, saved["shards"])
        self.hosting.lose(self.shards)
        self.snapshots.rest_on(rounds, dict.fromkeys(self.shards, stored))
        self.untold = True

    def close(self) -> None:
        """See Fleet."""
        self.crew.close()
        processes.end(self.consensus.actor)
        self.round, self.hosting.adopting, self._published = None, [], None  # so that Ray can free what they refer to
        with suppress(RayError):
            self.elastic.close()

    # A round's calls

    def _new_consensus(self, round_: int, published: Any) -> tuple[Holder, Any]:
        """A consensus actor about to begin a round with a published vector (None: the initial one), and that vector."""
        handle = processes.start_consensus(self._node)
        made, ready = handle.set_up.options(num_returns=2).remote(self.crew.reference, round_, published)
        return Holder(handle, ready), made if published is None else published

    def _deliver(self, round_: Round, member: Member, shards: Sequence[int]) -> None:
        ticket, absent = next(self._tickets), self.hosting.absent()
        payload, report = member.actor.step.options(num_returns=2).remote(
            round_.number, round_.sigma, self._published, round_.diagnose, tuple(shards), self.untold, absent
        )
        added = self.consensus.actor.add.remote(round_.number, ticket, payload)
        round_.deliveries[ticket] = Delivery(member, tuple(shards), payload, report, added, absent=absent)

    def _note(self, delivery: Delivery, report: WorkerReport) -> None:
        """Take note of a worker's pace."""
        delivery.member.stepped = report.began
        self.hosting.balance.note(delivery.member, list(report.shards), report.seconds)

    def _finished(self, round_: Round, kept: RoundRecord) -> None:
        """What a round leaves behind."""
        self.snapshots.remember(kept)
        self._published, self.done, self.round, self.untold = round_.published, round_.number, None, False
        self._deaths_here.clear()
        self._consensus_deaths = 0
        self._round_seconds.append(time.monotonic() - self._began)
        try:
            self.hosting.welcome()
        except GoneError:  # between two rounds it is looked into
            self.suspect = True

    def _close(self, round_: Round) -> None:
        added = [delivery.added for delivery in round_.deliveries.values()]
        round_.published, round_.summary = self.consensus.actor.update.options(num_returns=2).remote(
            round_.number, round_.sigma, round_.diagnose, tuple(round_.deliveries), *added
        )

    def gather(
        self,
        keys: Sequence[int],
        shares: Callable[[Sequence[int]], Iterable[tuple[Member, Sequence[int]]]],
        ask: Callable[[Member, Any, Sequence[int]], Any],
        published: Any = None,
    ) -> Callable[[], dict[Any, Any]]:
        """Ask now, about the published w where no other is given; what is lost when a worker dies is asked again."""
        published = self._published if published is None else published
        asked = [(ask(member, published, part), part) for member, part in shares(keys)]

        def sums() -> dict[Any, Any]:
            found: dict[Any, Any] = {}
            tries = 0
            while asked:
                reference, part = asked.pop()
                try:
                    tries += 1
                    self._wait([reference], "evaluate")
                    found |= answer(reference, "evaluate")
                except GoneError:
                    if tries > RECOVERIES * len(keys):
                        raise StatesLostError("processes die faster than an evaluation can be done.") from None
                    self.recover()
                    asked.extend((ask(member, published, again), again) for member, again in shares(part))
            return dict(sorted(found.items()))

        return sums

    def _wait(self, references: Sequence[Any], doing: str) -> None:
        """Wait until calls are answered.

        Raises:
            GoneError: A call was lost, or a process gives no pulse.
            PisaError: A call raised, or there was no answer for too long.
        """
        waiting, until = list(references), time.monotonic() + PATIENCE
        while waiting:
            done, waiting = ray.wait(waiting, timeout=PULSE, fetch_local=False)
            try:
                for reference in done:
                    answer(reference, doing)
                if not done and not self.crew.feel([self.consensus]):
                    raise GoneError("no pulse")
            except GoneError:
                self.suspect = True
                raise
            if not done and time.monotonic() > until:
                raise PisaError(f"a worker did not {doing} within {PATIENCE:g} s, though its process is alive.")

    # When processes are gone

    def recover(self) -> None:
        """Find out what is lost and have it done again, with what dies meanwhile. Harmless if nothing is."""
        for _ in range(RECOVERIES):
            try:
                self._bury()
                if self._unfed:
                    self._feed_consensus()
                self.hosting.sort()
                self._fence()
                if self.hosting.lost:
                    self._rehome()
                if self.round is not None:
                    self._close(self.round)
                else:
                    self._wait([a.done for a in self.hosting.adopting], "take in shards")
                    self.hosting.welcome()
                self.suspect = False
                return
            except GoneError:
                time.sleep(0.05)
        raise StatesLostError("processes die faster than their shards can be rebuilt.")

    def _bury(self) -> None:
        """Take note of who is gone, and start another consensus if it is."""
        gone = self.crew.dead([self.consensus])
        for member in self.crew.members:
            if member not in gone and self._is_uncertain(member, alone=self._unfed or self.consensus in gone):
                gone.append(member)
        for member in [holder for holder in gone if isinstance(holder, Member)]:
            frozen = member.pulse is not None and not is_ready([member.pulse[0]])
            self.crew.dismiss(member)
            if not frozen and self.elastic.is_staying(member):  # else it is not a crash that comes back
                self._deaths_here.update(member.shards)
            self._tell(
                "worker_died",
                worker=member.id,
                pid=member.info.pid if member.info else None,
                shards=member.shards,
                message="frozen: no pulse" if frozen else "gone",
            )
            self.hosting.lose(list(member.shards), by=member)
        if self.consensus in gone:
            processes.end(self.consensus.actor)
            self._tell("consensus_died")
            self.consensus, self._published = self._new_consensus(self.done + 1, self._published)
            self._consensus_deaths += 1
            self._unfed = self.untold = True
        self._check_deaths(len(gone))

    def _is_uncertain(self, member: Member, *, alone: bool) -> bool:
        """Whether a worker that answers has lost a call: nobody knows what it did, so it is as good as dead.

        Args:
            member: The worker.
            alone: Do not look at what became of its messages: the consensus is another one now.
        """
        calls = [a.done for a in self.hosting.adopting if a.member is member]
        deliveries = self.round.deliveries.values() if self.round is not None else ()
        calls += [d.report for d in deliveries if d.member is member]
        if any(lost.direct for lost in map(loss, calls) if lost):
            return True
        for delivery in deliveries:
            if delivery.added is None or delivery.member is not member or alone:
                continue
            if lost := loss(delivery.added):
                if lost.direct:
                    raise GoneError("the consensus process has died just now")
                return True  # its messages cannot be fetched
        return False

    def _check_deaths(self, number: int) -> None:
        self._staffing.deaths += number
        deaths, most = self._staffing.deaths, self._staffing.wanted.max_failures
        if 0 <= most < deaths:
            raise WorkerDiedError(
                f"{deaths} processes died, more than max_failures {most}: resume=True goes on from the last checkpoint."
            )
        if self._consensus_deaths >= DEATHS_IN_A_ROUND:
            raise PisaError(
                f"the consensus process died {DEATHS_IN_A_ROUND} times in round {self.done + 1}: look for too little "
                "memory on the driver's node; resume=True tries again."
            )
        often = [i for i, deaths in self._deaths_here.items() if deaths >= DEATHS_IN_A_ROUND]
        if often:
            raise PisaError(
                f"the workers of shard {often[0]} died {DEATHS_IN_A_ROUND} times in round {self.done + 1}: look for a "
                "crash in the model or for too little memory; resume=True tries again."
            )

    def _feed_consensus(self) -> None:
        """Give a new consensus what the live workers have sent; what dead ones sent is computed again."""
        # Its calls run out of order, so nothing may be asked of it before it is set up. Not by _wait, which would give
        # up for others' sake.
        self.elastic.await_start(self.consensus)
        answer(self.consensus.ready, "start")
        for ticket, delivery in list(self.round.deliveries.items() if self.round is not None else ()):
            assert self.round is not None  # noqa: S101  (for the type checker)
            if delivery.member in self.crew.members:
                if self._job.keeps_messages:
                    delivery.payload = delivery.member.actor.call.remote("repeat", delivery.shards, self.round.diagnose)
                delivery.added = self.consensus.actor.add.remote(self.round.number, ticket, delivery.payload)
                continue
            del self.round.deliveries[ticket]
            self.hosting.lose(set(delivery.shards) - self.hosting.lost)
        self._unfed = False

    def _fence(self) -> None:
        """Of what dead workers were to send: keep what has arrived, refuse the rest for ever."""
        if self.round is None:
            return
        round_ = self.round
        for ticket, delivery in list(round_.deliveries.items()):
            if delivery.member in self.crew.members or delivery.accepted:
                continue
            fenced = self.consensus.actor.fence.remote(round_.number, ticket)
            self._wait([fenced], "fence off a dead worker")
            delivery.accepted = answer(fenced, "fence off a dead worker")
            if not delivery.accepted:
                del round_.deliveries[ticket]
            elif loss(delivery.report):
                raise StatesLostError(
                    f"the reports of shards {list(delivery.shards)} are lost with the node they lay on."
                )

    def _rehome(self) -> None:
        """Rebuild lost shards on the workers there are; in a round, send what their old workers did not."""
        if not self.crew.members:
            self.elastic.staff()
        round_, hosting = self.round, self.hosting
        covered = round_.covered() if round_ is not None else set()
        for member, part in hosting.homes(self.elastic.staying()):
            if not hosting.is_home(member, part[0]):
                self._keep(member, part)
                continue
            hosting.adopt(member, [i for i in part if i in covered], [*self.snapshots.window, *self._current()])
            missing = [i for i in part if i not in covered]
            hosting.adopt(member, missing, self.snapshots.window)
            if round_ is not None and missing:
                round_.forgotten -= set(missing)
                self._deliver(round_, member, missing)
        if round_ is not None and (self.untold or not round_.deliveries):  # who is kept has a say all the same
            told = round_.covered()
            for member in self.crew.members:
                if silent := [i for i in member.shards if i not in told]:
                    self._deliver(round_, member, silent)

    def _keep(self, member: Member, shards: Sequence[int]) -> None:
        """Have a worker elsewhere keep shards whose place is away; it is told what they have said last."""
        self._forget(shards)
        said = None if self.untold else self.consensus.actor.said.remote(tuple(shards))
        self.hosting.keep(member, shards, said)

    def _forget(self, shards: Sequence[int]) -> None:
        """What shards have done since their last safe states has not happened."""
        self.snapshots.forget(shards)
        if self.round is not None:
            self.round.forgotten |= set(shards)

    def _current(self) -> list[RoundRecord]:
        return [] if self.round is None else [self._kept(self.round)]

    def _kept(self, round_: Round) -> RoundRecord:
        if self._sites:  # it may have changed during the round who was absent
            asked = round_.deliveries.values()
            reporters = {i for d in asked for i in set(self._job.reporters(round_.number, d.absent)) & set(d.shards)}
            reporters -= round_.forgotten
        else:
            reporters = set(self._job.reporters(round_.number))
        return RoundRecord(round_.number, round_.sigma, self._published, reporters)

    # When processes come and go

    def _rebalance(self, leaving: Sequence[Member]) -> None:
        """Cut the shards anew over all who stay, and move their states; then let go who leaves."""
        before = [m for m in self.crew.members if m.shards]
        # Where all who were to stay have died meanwhile, who leaves does not yet.
        stay = [m for m in self.crew.members if m not in leaving] or self.crew.members
        self.hosting.place(stay, self.done)
        try:
            self._wait([a.done for a in self.hosting.adopting], "take in shards")
            self.hosting.welcome()
        except GoneError:
            self.recover()
        for member in leaving:
            if member in self.crew.members and not member.shards:
                self.crew.dismiss(member)
                self._tell("worker_left", worker=member.id, pid=member.info.pid if member.info else None)
        if len(before) != len(self.crew.members):
            self._tell("resized", workers=len(self.crew.members), before=len(before))

    def take_snapshot(self) -> list[Any]:
        """Ask all workers for their shards' states; the parts that are on their way."""
        return self.snapshots.take(self.done, self.crew.members, self.consensus.actor, self._node)


def _ask_slope(member: Member, point: Any, shards: Sequence[int], speakers: Sequence[int]) -> Any:
    return member.actor.call.remote("slope", point, shards, speakers)
