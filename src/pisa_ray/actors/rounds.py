"""The rule by which rounds begin, end and are recovered; and the one by which a round waits for all its reporters."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pisa_ray.actors.calls import answer, how_lost
from pisa_ray.actors.core import Core
from pisa_ray.actors.crew import Member
from pisa_ray.actors.deliveries import Delivery, Round
from pisa_ray.actors.snapshots import RoundRecord
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import ConsensusReport, RoundReport, RoundSpec, WorkerReport
from pisa_ray.errors import StatesLostError


class Rounds(Protocol):
    """A rule of rounds."""

    def begin(self, spec: RoundSpec, settle: bool) -> None:
        """Start a round; see Fleet.begin."""

    def end(self) -> RoundReport:
        """Wait for the end of the round.

        Raises:
            GoneError: Something was lost; call it again after a recovery.
        """

    def is_settled(self) -> bool:
        """Return whether no step is under way between two rounds."""

    def usual_seconds(self) -> float | None:
        """Return the time of a round, by which the time between snapshots is chosen; None: it is not."""

    def is_uneven(self) -> bool:
        """Return whether shards should be moved since some workers are much slower than others."""

    def may_be_saved(self) -> bool:
        """Return whether the states after the last round may be set apart for later."""

    def evaluators(self) -> list[Member]:
        """Return the workers that should evaluate test rows."""

    def change(self, job: Job) -> None:
        """Take note that shards have joined or left."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take note of the versions of messages in a checkpoint, by its entries in the manifest."""

    # The steps of a recovery

    def send_again(self) -> None:
        """Give a new consensus the messages of this round that the live workers have."""

    def fence(self) -> None:
        """Count what has arrived of dead workers' messages, and have the rest refused for ever."""

    def rebuild(self) -> None:
        """Have lost shards rebuilt by the workers there are, and what is missing in this round computed again."""

    def go_on(self) -> None:
        """Go on with the round under way."""


class SynchronousRounds:
    """A round is submitted whole, and ends when all its reporters' messages are in; see Rounds.

    Args:
        core: What the parts of the fleet share.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._began = 0.0
        self._seconds: deque[float] = deque(maxlen=20)

    def begin(self, spec: RoundSpec, settle: bool) -> None:
        """See Rounds; at the end of each round all steps have come to their end."""
        self._began = time.monotonic()
        self._core.state.round = this = Round(spec)
        for member in self._core.crew.members:
            if member.shards:
                self._deliver(this, member, member.shards)
        self.go_on()

    def end(self) -> RoundReport:
        """See Rounds."""
        core, round_ = self._core, _under_way(self._core)
        core.wait([d.report for d in round_.deliveries.values()], "finish the round")
        core.wait([round_.summary, *(a.done for a in core.assignment.adopting)], "finish the round")
        reports: list[WorkerReport] = [answer(d.report, "report") for d in round_.deliveries.values()]
        summary: ConsensusReport = answer(round_.summary, "finish the round")
        for delivery, report in zip(round_.deliveries.values(), reports, strict=True):
            core.note(delivery, report)
        core.end_round(round_, self._record(round_))
        self._seconds.append(time.monotonic() - self._began)
        return RoundReport.of(reports, summary, sum(report.bytes_sent for report in reports))

    def is_settled(self) -> bool:
        """See Rounds."""
        return True

    def usual_seconds(self) -> float | None:
        """See Rounds."""
        return statistics.median(self._seconds) if self._seconds else 0.0

    def is_uneven(self) -> bool:
        """See Rounds."""
        return self._core.assignment.is_uneven(self._core.state.done)

    def may_be_saved(self) -> bool:
        """See Rounds."""
        return True

    def evaluators(self) -> list[Member]:
        """See Rounds."""
        return self._core.crew.members

    def change(self, job: Job) -> None:
        """See Rounds."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """See Rounds."""

    def send_again(self) -> None:
        """See Rounds; what dead workers have sent is computed again."""
        core, round_ = self._core, self._core.state.round
        if round_ is None:
            return
        for ticket, delivery in list(round_.deliveries.items()):
            if delivery.member in core.crew.members:
                if core.state.job.messages_stand:
                    delivery.payload = delivery.member.actor.call.remote(
                        "repeat", delivery.shards, round_.spec.diagnose
                    )
                delivery.added = core.state.consensus.actor.add.remote(round_.spec.number, ticket, delivery.payload)
                continue
            del round_.deliveries[ticket]
            core.assignment.lose(set(delivery.shards) - core.assignment.lost)

    def fence(self) -> None:
        """See Rounds."""
        core, round_ = self._core, self._core.state.round
        if round_ is None:
            return
        for ticket, delivery in list(round_.deliveries.items()):
            if delivery.member in core.crew.members or delivery.accepted:
                continue
            delivery.accepted = fence_off(core, round_, ticket)
            if not delivery.accepted:
                del round_.deliveries[ticket]
            elif how_lost(delivery.report):
                raise StatesLostError(
                    f"the reports of shards {list(delivery.shards)} are lost with the node they lay on."
                )

    def rebuild(self) -> None:
        """See Rounds."""
        core, round_ = self._core, self._core.state.round
        assignment, snapshots = core.assignment, core.snapshots  # whose window changes on the way
        covered = round_.covered() if round_ is not None else set()
        for member, part in assignment.hosts_for_lost(core.elastic.staying()):
            if not assignment.is_home(member, part[0]):
                core.host_away(member, part)
                if round_ is not None:
                    round_.undone |= set(part)
                continue
            current = [self._record(round_)] if round_ is not None else []
            assignment.adopt(member, [i for i in part if i in covered], [*snapshots.window, *current])
            missing = [i for i in part if i not in covered]
            assignment.adopt(member, missing, snapshots.window)
            if round_ is not None and missing:
                round_.undone -= set(missing)
                self._deliver(round_, member, missing)
        # A consensus that lacks the messages that stand needs them of shards that cannot report, too.
        if round_ is not None and (core.state.lacks_standing or not round_.deliveries):
            covered = round_.covered()
            for member in core.crew.members:
                if silent := [i for i in member.shards if i not in covered]:
                    self._deliver(round_, member, silent)

    def go_on(self) -> None:
        """See Rounds: ask for the update that takes all adds."""
        round_ = _under_way(self._core)
        added = [delivery.added for delivery in round_.deliveries.values()]
        round_.published, round_.summary = self._core.state.consensus.actor.update.options(num_returns=2).remote(
            round_.spec, tuple(round_.deliveries), *added
        )

    def _deliver(self, round_: Round, member: Member, shards: Sequence[int]) -> None:
        state = self._core.state
        ticket, absent = next(state.tickets), self._core.assignment.absent()
        payload, report = member.actor.step.options(num_returns=2).remote(
            round_.spec, state.published, tuple(shards), state.lacks_standing, absent
        )
        added = state.consensus.actor.add.remote(round_.spec.number, ticket, payload)
        round_.deliveries[ticket] = Delivery(member, tuple(shards), payload, report, added, absent=absent)

    def _record(self, round_: Round) -> RoundRecord:
        job = self._core.state.job
        if self._core.sites:  # it may have changed during the round which shards were absent
            asked = round_.deliveries.values()
            reporters = {i for d in asked for i in set(job.reporters(round_.spec.number, d.absent)) & set(d.shards)}
            reporters -= round_.undone
        else:
            reporters = set(job.reporters(round_.spec.number))
        return RoundRecord(round_.spec, self._core.state.published, reporters)


def fence_off(core: Core, round_: Round, ticket: int) -> bool:
    """Have the consensus refuse a delivery from now on; return whether it has been counted.

    Raises:
        GoneError: The consensus is gone.
    """
    fenced = core.state.consensus.actor.fence.remote(round_.spec.number, ticket)
    core.wait([fenced], "fence off a dead worker")
    return bool(answer(fenced, "fence off a dead worker"))


def _under_way(core: Core) -> Round:
    if core.state.round is None:
        raise RuntimeError("end() without begin()")
    return core.state.round
