"""Rounds that do not wait for every shard: workers step at the newest w, and messages count when they arrive.

What a fleet promises holds given the log of arrivals: workers may die, come and go; a step that was lost on the way
has not happened, and one whose message is in a sum is replayed like any other. States are set apart, moved and saved
only when no step is under way, after a round that has waited for all of them (it is *settled*).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from pisa_ray.actors.calls import answer
from pisa_ray.actors.core import LONGEST_CALL, Core
from pisa_ray.actors.crew import PULSE, Member
from pisa_ray.actors.deliveries import Delivery, Round
from pisa_ray.actors.rounds import fence_off
from pisa_ray.actors.snapshots import RoundRecord
from pisa_ray.engine.asynchrony import Arrivals, Asynchronous
from pisa_ray.engine.fleet import Log
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import ConsensusReport, RoundReport, RoundSpec, WorkerReport
from pisa_ray.errors import PisaError

#: How many times the median pace makes a worker a slow one.
SLOW = 2.0


@dataclass(kw_only=True)
class Flight(Delivery):
    """A step under way, or one whose message waits for the end of the round.

    Attributes:
        record: The round whose w it is made at.
        landed: Its report, once it is done.
        order: Its place among all that have landed.
    """

    record: RoundRecord
    landed: WorkerReport | None = None
    order: int = 0


class AsynchronousRounds:
    """A round ends when a rule says so; see Rounds.

    Args:
        core: What the parts of the fleet share.
        rule: When a round ends.
        log: Takes note of the arrivals of a round, before they change w.
        replay: The arrivals of a run that is to be repeated; None: none is repeated.

    Attributes:
        flights: The steps under way or waiting, by ticket.
    """

    def __init__(self, core: Core, rule: Asynchronous, log: Log, replay: Arrivals | None) -> None:
        self._core, self._rule, self._log, self._replay = core, rule, log, replay
        self._versions = dict.fromkeys(core.state.job.present, 0)  # the round that a shard's standing message is from
        self.flights: dict[int, Flight] = {}
        self._landings = 0
        self._began = 0.0
        self._current: RoundRecord | None = None
        self._settling = False
        self._repeats: list[int] = []  # tickets of the last time that a new consensus was sent all messages
        # Rounds after which steps at their w, or at an earlier one, still arrive: no state may be set apart then.
        self._open = {r for t, steps in (replay or {}).items() for r in range(min((v for _, v in steps), default=t), t)}
        core.snapshots.period = core.snapshots.longest  # what they cost is the wait for the slowest step

    def begin(self, spec: RoundSpec, settle: bool) -> None:
        """See Rounds."""
        state = self._core.state
        self._began = time.monotonic()
        state.round = Round(spec, deliveries=dict(self.flights))
        self._current = RoundRecord(spec, state.published)
        self._settling = settle or state.moving or state.lacks_standing or self._core.snapshots.due(spec.number)
        self._launch(state.round, self._current)

    def end(self) -> RoundReport:
        """See Rounds."""
        round_, current = self._core.state.round, self._current
        if round_ is None or current is None:
            raise RuntimeError("end() without begin()")
        self._await_landings(round_, current)
        return self._conclude(round_, current)

    def is_settled(self) -> bool:
        """See Rounds."""
        return not self.flights

    def usual_seconds(self) -> float | None:
        """See Rounds."""
        return None

    def is_uneven(self) -> bool:
        """See Rounds; a slow worker takes fewer steps and holds up nobody."""
        return False

    def may_be_saved(self) -> bool:
        """See Rounds."""
        return self._core.state.done not in self._open

    def evaluators(self) -> list[Member]:
        """See Rounds: those not in a step that began in an earlier round, nor much slower than the others."""
        members, done = self._core.crew.members, self._core.state.done
        late = {f.member.id for f in self.flights.values() if f.record.spec.number <= done}
        usual = statistics.median([m.pace for m in members])
        quick = [m for m in members if m.id not in late and m.pace <= SLOW * usual]
        return quick or members

    def change(self, job: Job) -> None:
        """See Rounds; a newcomer is waited for until its first message, a shard that has left is not waited for."""
        self._versions = {i: self._versions.get(i, 0) for i in job.present}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """See Rounds."""
        for entry in saved["shards"]:
            for i, scalars in entry["shards"].items():
                self._versions[int(i)] = int(scalars["version"])

    # Steps

    def _launch(self, round_: Round, current: RoundRecord) -> None:
        """Have every free shard take a step at the newest w; in a run that is repeated, those that it took."""
        made = self._made()
        for record, wanted in self._wanted_steps(round_.spec.number, current):
            for member in self._core.crew.members:
                shards = [i for i in member.shards if i in wanted and made[i] < record.spec.number]
                if shards:
                    self._fly(round_, record, member, shards)
                made |= dict.fromkeys(shards, record.spec.number)

    def _made(self) -> dict[int, int]:
        """Return the newest w that each shard has stepped at; of those that are stepping, one out of reach."""
        made = dict(self._versions)
        for flight in self.flights.values():
            for i in flight.shards:
                made[i] = max(made[i], flight.record.spec.number)
                if flight.landed is None and self._replay is None:
                    made[i] = self._core.state.done + 1  # one at a time: the next one may be at a newer w
        return made

    def _wanted_steps(self, round_: int, current: RoundRecord) -> Iterable[tuple[RoundRecord, set[int]]]:
        assignment = self._core.assignment
        if self._replay is None:
            return [(current, set(assignment.shards) - assignment.absent())]
        if round_ not in self._replay:
            raise PisaError(f"the log that is repeated ends before round {round_}: use rounds {round_ - 1}.")
        known = {record.spec.number: record for record in [*self._core.snapshots.window, current]}
        steps: dict[int, set[int]] = {}
        for shard, version in self._replay[round_]:
            steps.setdefault(version, set()).add(shard)
        if gone := sorted(set(steps) - set(known)):
            raise PisaError(
                f"round {round_} of the log has a step at w of round {gone[0]}, which is before the checkpoint that "
                "this run was resumed from: start the repetition anew."
            )
        return [(known[version], shards) for version, shards in sorted(steps.items())]

    def _fly(self, round_: Round, record: RoundRecord, member: Member, shards: Sequence[int]) -> None:
        spec = replace(record.spec, diagnose=round_.spec.diagnose and record is self._current)
        payload, report = member.actor.step.options(num_returns=2).remote(spec, record.published, tuple(shards), False)
        member.actor.call.remote("prefetch", tuple(shards))  # while its message is on its way
        flight = Flight(member, tuple(shards), payload, report, None, record=record)
        ticket = next(self._core.state.tickets)
        self.flights[ticket] = round_.deliveries[ticket] = flight

    def _await_landings(self, round_: Round, current: RoundRecord) -> None:
        """Wait until the round may end; shards that have landed take their next step meanwhile, if there is a newer w.

        Raises:
            GoneError: A step was lost, or a process gives no pulse.
            PisaError: A step raised, or none landed for too long.
        """
        until = time.monotonic() + LONGEST_CALL
        while not self._may_end(round_):
            flying = {flight.report: flight for flight in self.flights.values() if flight.landed is None}
            if not flying:
                raise RuntimeError(f"round {round_.spec.number} waits for steps, but none is under way")
            done, _ = self._core.look(list(flying), self._seconds_to_look(), "take a step")
            if done:
                done, _ = ray.wait(list(flying), num_returns=len(flying), timeout=0, fetch_local=False)
                for reference in done:
                    self._land(flying[reference])
                until = time.monotonic() + LONGEST_CALL
                if not self._settling and self._replay is None:
                    self._launch(round_, current)
            elif time.monotonic() > until:
                seconds = f"{LONGEST_CALL:g} s"
                raise PisaError(f"no worker finished its step within {seconds}, though their processes are alive.")

    def _seconds_to_look(self) -> float:
        """Return how long to wait for a step before the deadline and the pulses are looked at."""
        if self._rule.deadline is None:
            return PULSE
        left = self._rule.deadline - (time.monotonic() - self._began)
        return min(PULSE, left) if left > 0 else PULSE

    def _land(self, flight: Flight) -> None:
        flight.landed = answer(flight.report, "take a step")
        flight.order, self._landings = self._landings, self._landings + 1
        self._core.note(flight, flight.landed)

    def _may_end(self, round_: Round) -> bool:
        landed = self._landed()
        if (self._settling or self._replay is not None) and len(landed) < len(self.flights):
            return False
        if self._replay is not None:
            return True
        absent = self._core.assignment.absent()
        versions = {i: version for i, version in self._versions.items() if i not in absent}
        for flight in landed:
            for i in set(flight.shards) & set(versions):
                versions[i] = max(versions[i], flight.record.spec.number)
        arrived = {i for flight in landed for i in flight.shards}
        return self._rule.ends(round_.spec.number, list(versions.values()), arrived, time.monotonic() - self._began)

    def _landed(self) -> list[Flight]:
        return sorted((f for f in self.flights.values() if f.landed is not None), key=lambda f: f.order)

    # The end of a round

    def _conclude(self, round_: Round, current: RoundRecord) -> RoundReport:
        """Add what has arrived, take note of it, and have the next w made."""
        core = self._core
        if round_.summary is None:  # else it has been asked for, and only the answer is missing
            landed = self._landed()
            added = self._send_all(round_) if core.state.lacks_standing else self._add(round_)
            core.wait(added, "finish the round")
            for flight in landed:
                self._accept(flight)
            self._log(round_.spec.number, [(i, flight.record.spec.number) for flight in landed for i in flight.shards])
            round_.published, round_.summary = core.state.consensus.actor.update.options(num_returns=2).remote(
                round_.spec, (), *added
            )
        core.wait([round_.summary], "finish the round")
        summary: ConsensusReport = answer(round_.summary, "finish the round")
        reports = [flight.landed for flight in self._landed() if flight.accepted and flight.landed is not None]
        self.flights = {ticket: flight for ticket, flight in self.flights.items() if not flight.accepted}
        core.end_round(round_, current)
        return RoundReport.of(reports, summary, sum(report.bytes_sent for report in reports))

    def _add(self, round_: Round) -> list[Any]:
        """Give the consensus what has landed; a worker's in its order, since a shard may have landed twice."""
        last: dict[int, Any] = {}
        for ticket, flight in sorted(self.flights.items(), key=lambda item: item[1].order):
            if flight.landed is not None:
                before = [last[flight.member.id]] if flight.member.id in last else []
                flight.added = self._core.state.consensus.actor.add.remote(
                    round_.spec.number, ticket, flight.payload, *before, duals=flight.record is self._current
                )
                last[flight.member.id] = flight.added
        return [flight.added for flight in self._landed()]

    def _send_all(self, round_: Round) -> list[Any]:
        """Send a new consensus the shards' last messages, which are those that stand: no step is under way."""
        core, consensus = self._core, self._core.state.consensus.actor
        core.wait([consensus.refuse.remote(self._repeats)], "finish the round")
        added, self._repeats = [], []
        for member in core.crew.members:
            if member.shards:
                self._repeats.append(next(core.state.tickets))
                payload = member.actor.call.remote("repeat", tuple(member.shards), round_.spec.diagnose)
                added.append(consensus.add.remote(round_.spec.number, self._repeats[-1], payload))
        return added

    def _accept(self, flight: Flight) -> None:
        """Take note that a message is in the sum: from now on its step is one that has happened."""
        if not flight.accepted:
            flight.accepted = True
            flight.record.reporters.update(flight.shards)
            for i in flight.shards:
                self._versions[i] = max(self._versions[i], flight.record.spec.number)

    # The steps of a recovery

    def send_again(self) -> None:
        """See Rounds; the consensus is sent all messages at the end of this round, when no step is under way."""
        self._settling = True
        for flight in self.flights.values():
            flight.added = None
        if self._core.state.round is not None:
            self._core.state.round.summary = None

    def fence(self) -> None:
        """See Rounds; a step of a dead worker has happened if its message is in the sum, and not otherwise."""
        state = self._core.state
        for ticket, flight in list(self.flights.items()):
            if flight.member in self._core.crew.members or flight.accepted:
                continue
            was_asked = flight.added is not None and not state.lacks_standing
            if was_asked and state.round is not None and fence_off(self._core, state.round, ticket):
                self._accept(flight)
                continue
            del self.flights[ticket]
            if state.round is not None:
                state.round.deliveries.pop(ticket, None)

    def rebuild(self) -> None:
        """See Rounds; the steps that are missing are launched by `go_on`."""
        core, assignment = self._core, self._core.assignment
        current = [self._current] if core.state.round is not None and self._current is not None else []
        for member, part in assignment.hosts_for_lost(core.elastic.staying()):
            if assignment.is_home(member, part[0]):
                assignment.adopt(member, part, [*core.snapshots.window, *current])
                continue
            if self._current is not None:
                self._current.reporters.difference_update(part)
            core.host_away(member, part)

    def go_on(self) -> None:
        """See Rounds: launch steps, unless the end of the round has come; the next one has another w."""
        round_ = self._core.state.round
        if round_ is not None and self._current is not None and round_.summary is None:
            self._launch(round_, self._current)
