"""Rounds that do not wait for everybody: workers step at the newest w there is, and messages count when they arrive.

What RayFleet promises holds given the log of arrivals: workers may die, come and go; a step that was lost on the way
has not happened, and one whose message is in a sum is replayed like any other. States are kept apart, moved and saved
only when no step is under way, after a round that has waited for all (it is *settled*).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from pisa_ray.actors.calls import GoneError, answer
from pisa_ray.actors.crew import PULSE, Member, Tell
from pisa_ray.actors.elastic import Staffing
from pisa_ray.actors.fleet import PATIENCE, RECOVERIES, RayFleet
from pisa_ray.actors.rounds import Delivery, Round
from pisa_ray.actors.session import RayResources
from pisa_ray.actors.sites import NOWHERE, Sites
from pisa_ray.actors.snapshots import RoundRecord
from pisa_ray.engine.asynchrony import Arrivals
from pisa_ray.engine.files import Folder
from pisa_ray.engine.fleet import Log
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import ConsensusReport, RoundReport, WorkerReport
from pisa_ray.errors import PisaError, StatesLostError

#: How many times the median pace makes a worker a slow one.
SLOW = 2.0


@dataclass(kw_only=True)
class Flight(Delivery):
    """A step under way, or one whose message waits for the end of the round.

    Attributes:
        kept: The round whose w it was made at.
        landed: Its report, once it is done.
        order: Its place among all that have landed.
    """

    kept: RoundRecord
    landed: WorkerReport | None = None
    order: int = 0


class AsynchronousFleet(RayFleet):
    """RayFleet, but a round ends when `job.asynchronous` says so.

    Args:
        job: What is trained.
        staffing: How many workers are wanted, and what is put up with.
        resources: What each reserves.
        tell: Takes note of events.
        stop_requested: Whether the user asked to stop.
        log: Takes note of the arrivals of a round, before they change w.
        replay: Those of a run that is to be repeated; None: they are what they are.
        sites: Where shards are pinned; while those of a shard are away, it is not waited for.
    """

    def __init__(
        self,
        job: Job,
        staffing: Staffing,
        resources: RayResources,
        tell: Tell,
        stop_requested: Callable[[], bool],
        log: Log,
        replay: Arrivals | None = None,
        sites: Sites = NOWHERE,
    ) -> None:
        assert job.asynchronous is not None  # noqa: S101  (for the type checker)
        self._rule, self._log, self._replay = job.asynchronous, log, replay
        self._heard = dict.fromkeys(job.present, 0)  # the round that each shard's standing message is from
        self.flights: dict[int, Flight] = {}
        self._landings = 0
        self._now: RoundRecord | None = None
        self._settling, self._moving = False, False
        self._told: list[int] = []  # tickets of the last time that a new consensus was told all
        # Rounds after which steps at their w, or at an earlier one, still arrive: no state may be kept apart then.
        self._open = {r for t, steps in (replay or {}).items() for r in range(min((v for _, v in steps), default=t), t)}
        super().__init__(job, staffing, resources, tell, stop_requested, sites)
        self.snapshots.period = self.snapshots.longest  # what they cost is the wait for the slowest step

    def is_settled(self) -> bool:
        """See Fleet."""
        return not self.flights

    def tend(self) -> None:
        """See Fleet; where steps are under way, shards are moved and states kept after the next round."""
        self.snapshots.settle(None)
        arrived, leaving = self.elastic.look()
        self._moving = self._moving or bool(arrived or leaving)
        if self.hosting.lost or self.suspect:
            self.recover()
        if not self.is_settled():
            return
        if self._moving:
            self._rebalance(leaving)
        while self.elastic.is_short():
            self.elastic.staff()
            self._rebalance([])
        self._moving = False
        if self.snapshots.due(self.done) and self.done not in self._open:
            self.take_snapshot()

    def begin(self, round_: int, sigma: float, diagnose: bool, settle: bool = False) -> None:
        """See Fleet."""
        self._began = time.monotonic()
        self.round = Round(round_, sigma, diagnose, deliveries=dict(self.flights))
        self._now = RoundRecord(round_, sigma, self._published)
        self._settling = settle or self._moving or self.untold or self.snapshots.due(round_)
        self._launch()

    def end(self) -> RoundReport:
        """See Fleet."""
        if self.round is None:
            raise RuntimeError("end() without begin()")
        for _ in range(RECOVERIES):
            try:
                self._await_landings(self.round)
                return self._conclude(self.round)
            except GoneError:
                self.recover()
        raise StatesLostError("processes die faster than a round can be finished.")

    def change(self, job: Job) -> None:
        """See Fleet; who has joined is waited for until its first message, who has left is not waited for."""
        super().change(job)
        self._heard = {i: self._heard.get(i, 0) for i in job.present}

    def restore(self, folder: Folder, saved: Mapping[str, Any], rounds: int) -> None:
        """See Fleet."""
        super().restore(folder, saved, rounds)
        for entry in saved["shards"]:
            for i, scalars in entry["shards"].items():
                self._heard[int(i)] = int(scalars["version"])

    # Steps

    def _launch(self) -> None:
        """Have every free shard take a step at the newest w; of a run that is repeated, those that it took."""
        assert self.round is not None and self._now is not None  # noqa: S101, PT018  (for the type checker)
        made = self._made()
        for kept, wanted in self._wanted_steps(self.round.number, self._now):
            for member in self.crew.members:
                shards = [i for i in member.shards if i in wanted and made[i] < kept.number]
                if shards:
                    self._fly(self.round, kept, member, shards)
                made |= dict.fromkeys(shards, kept.number)

    def _made(self) -> dict[int, int]:
        """The newest w that each shard has stepped at; of those that are stepping, out of reach."""
        made = dict(self._heard)
        for flight in self.flights.values():
            for i in flight.shards:
                made[i] = max(made[i], flight.kept.number)
                if flight.landed is None and self._replay is None:
                    made[i] = self.done + 1  # one at a time: the next one may be at a newer w
        return made

    def _wanted_steps(self, round_: int, now: RoundRecord) -> Iterable[tuple[RoundRecord, set[int]]]:
        if self._replay is None:
            return [(now, set(self.shards) - self.hosting.absent())]
        if round_ not in self._replay:
            raise PisaError(f"the log that is repeated ends before round {round_}: use rounds {round_ - 1}.")
        known = {kept.number: kept for kept in [*self.snapshots.window, now]}
        steps: dict[int, set[int]] = {}
        for shard, version in self._replay[round_]:
            steps.setdefault(version, set()).add(shard)
        if gone := sorted(set(steps) - set(known)):
            raise PisaError(
                f"round {round_} of the log has a step at w of round {gone[0]}, which is before the checkpoint that "
                "this run was resumed from: start the repetition anew."
            )
        return [(known[version], shards) for version, shards in sorted(steps.items())]

    def _fly(self, round_: Round, kept: RoundRecord, member: Member, shards: Sequence[int]) -> None:
        diagnose = round_.diagnose and kept is self._now
        payload, report = member.actor.step.options(num_returns=2).remote(
            kept.number, kept.sigma, kept.published, diagnose, tuple(shards), False
        )
        member.actor.call.remote("prefetch", tuple(shards))  # while its message is on its way
        flight = Flight(member, tuple(shards), payload, report, None, kept=kept)
        ticket = next(self._tickets)
        self.flights[ticket] = round_.deliveries[ticket] = flight

    def _await_landings(self, round_: Round) -> None:
        """Wait until the round may end; who has landed takes the next step meanwhile, if there is a w that it can use.

        Raises:
            GoneError: A step was lost, or a process gives no pulse.
            PisaError: A step raised, or none landed for too long.
        """
        until = time.monotonic() + PATIENCE
        while not self._may_end(round_):
            flying = {flight.report: flight for flight in self.flights.values() if flight.landed is None}
            if not flying:
                raise RuntimeError(f"round {round_.number} waits for steps, but none is under way")
            done, _ = ray.wait(list(flying), timeout=self._patience(), fetch_local=False)
            if done:
                done, _ = ray.wait(list(flying), num_returns=len(flying), timeout=0, fetch_local=False)
            try:
                for reference in done:
                    self._land(flying[reference])
                if not done and not self.crew.feel([self.consensus]):
                    raise GoneError("no pulse")
            except GoneError:
                self.suspect = True
                raise
            if done:
                until = time.monotonic() + PATIENCE
                if not self._settling and self._replay is None:
                    self._launch()
            elif time.monotonic() > until:
                raise PisaError(f"no worker finished its step within {PATIENCE:g} s, though their processes are alive.")

    def _patience(self) -> float:
        """Seconds until something is to be looked at."""
        if self._rule.deadline is None:
            return PULSE
        left = self._rule.deadline - (time.monotonic() - self._began)
        return min(PULSE, left) if left > 0 else PULSE

    def _land(self, flight: Flight) -> None:
        flight.landed = answer(flight.report, "take a step")
        flight.order, self._landings = self._landings, self._landings + 1
        self._note(flight, flight.landed)

    def _may_end(self, round_: Round) -> bool:
        landed = self._landed()
        if (self._settling or self._replay is not None) and len(landed) < len(self.flights):
            return False
        if self._replay is not None:
            return True
        absent = self.hosting.absent()
        heard = {i: version for i, version in self._heard.items() if i not in absent}
        for flight in landed:
            for i in set(flight.shards) & set(heard):
                heard[i] = max(heard[i], flight.kept.number)
        arrived = {i for flight in landed for i in flight.shards}
        return self._rule.ends(round_.number, list(heard.values()), arrived, time.monotonic() - self._began)

    def _landed(self) -> list[Flight]:
        return sorted((f for f in self.flights.values() if f.landed is not None), key=lambda f: f.order)

    # The end of a round

    def _conclude(self, round_: Round) -> RoundReport:
        """Add what has arrived, take note of it, and make the next w."""
        assert self._now is not None  # noqa: S101  (for the type checker)
        if round_.summary is None:  # else it has been asked for, and only the answer is missing
            landed = self._landed()
            added = self._tell_all(round_) if self.untold else self._add(round_)
            self._wait(added, "finish the round")
            for flight in landed:
                self._accept(flight)
            self._log(round_.number, [(i, flight.kept.number) for flight in landed for i in flight.shards])
            round_.published, round_.summary = self.consensus.actor.update.options(num_returns=2).remote(
                round_.number, round_.sigma, round_.diagnose, (), *added
            )
        self._wait([round_.summary], "finish the round")
        summary: ConsensusReport = answer(round_.summary, "finish the round")
        reports = [flight.landed for flight in self._landed() if flight.accepted and flight.landed is not None]
        self.flights = {ticket: flight for ticket, flight in self.flights.items() if not flight.accepted}
        self._finished(round_, self._now)
        return RoundReport.of(reports, summary, sum(report.bytes_sent for report in reports))

    def _add(self, round_: Round) -> list[Any]:
        """Give the consensus what has landed; a worker's in its order, since a shard may have landed twice."""
        last: dict[int, Any] = {}
        for ticket, flight in sorted(self.flights.items(), key=lambda item: item[1].order):
            if flight.landed is not None:
                before = [last[flight.member.id]] if flight.member.id in last else []
                flight.added = self.consensus.actor.add.remote(
                    round_.number, ticket, flight.payload, *before, duals=flight.kept is self._now
                )
                last[flight.member.id] = flight.added
        return [flight.added for flight in self._landed()]

    def _tell_all(self, round_: Round) -> list[Any]:
        """Give a consensus that knows nothing the last messages, which are those that stand: no step is under way."""
        self._wait([self.consensus.actor.tell_again.remote(self._told)], "finish the round")
        added, self._told = [], []
        for member in self.crew.members:
            if member.shards:
                self._told.append(next(self._tickets))
                payload = member.actor.call.remote("repeat", tuple(member.shards), round_.diagnose)
                added.append(self.consensus.actor.add.remote(round_.number, self._told[-1], payload))
        return added

    def _accept(self, flight: Flight) -> None:
        """A message is in the sum: from now on its step is one that has happened."""
        if not flight.accepted:
            flight.accepted = True
            flight.kept.reporters.update(flight.shards)
            for i in flight.shards:
                self._heard[i] = max(self._heard[i], flight.kept.number)

    # When processes are gone

    def _feed_consensus(self) -> None:
        """See RayFleet; it is told all when no step is under way."""
        self.elastic.await_start(self.consensus)
        answer(self.consensus.ready, "start")
        self._unfed, self._settling = False, True
        for flight in self.flights.values():
            flight.added = None
        if self.round is not None:
            self.round.summary = None

    def _close(self, round_: Round) -> None:
        """Go on with a round, unless its end has come: the next one has another w."""
        if round_.summary is None:
            self._launch()

    def _fence(self) -> None:
        """See RayFleet: of the dead, what is in the sum has happened, and nothing else."""
        for ticket, flight in list(self.flights.items()):
            if flight.member in self.crew.members or flight.accepted:
                continue
            if flight.added is not None and not self.untold and self.round is not None:
                fenced = self.consensus.actor.fence.remote(self.round.number, ticket)
                self._wait([fenced], "fence off a dead worker")
                if answer(fenced, "fence off a dead worker"):
                    self._accept(flight)
                    continue
            del self.flights[ticket]
            if self.round is not None:
                self.round.deliveries.pop(ticket, None)

    def _rehome(self) -> None:
        """Rebuild lost shards on the workers there are."""
        if not self.crew.members:
            self.elastic.staff()
        current = [self._now] if self.round is not None and self._now is not None else []
        for member, part in self.hosting.homes(self.elastic.staying()):
            if self.hosting.is_home(member, part[0]):
                self.hosting.adopt(member, part, [*self.snapshots.window, *current])
            else:
                self._keep(member, part)

    def _forget(self, shards: Sequence[int]) -> None:
        super()._forget(shards)
        if self._now is not None:
            self._now.reporters.difference_update(shards)

    # Evaluation

    def evaluators(self) -> list[Member]:
        """Workers that are not in a step that began in an earlier round, nor much slower than the others."""
        late = {f.member.id for f in self.flights.values() if f.kept.number <= self.done}
        usual = statistics.median([m.pace for m in self.crew.members])
        quick = [m for m in self.crew.members if m.id not in late and m.pace <= SLOW * usual]
        return quick or self.crew.members
