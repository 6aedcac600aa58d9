"""Recovery: finding out which processes are gone, and having what is lost with them done again by others."""

from __future__ import annotations

import time

from pisa_ray.actors import processes
from pisa_ray.actors.calls import GoneError, answer, how_lost, is_ready, try_again
from pisa_ray.actors.core import Core, start_consensus
from pisa_ray.actors.crew import Member
from pisa_ray.actors.rounds import Rounds

#: Seconds between two attempts.
BETWEEN_ATTEMPTS = 0.05


class Recovery:
    """Brings a fleet from the discovery of a loss to where its round can go on.

    An attempt goes through these steps, and begins anew if another process dies meanwhile: (1) take note of who is
    gone, and start another consensus if it is; (2) send a new consensus what the live workers have; (3) fence off the
    messages of dead workers that have not arrived; (4) have the lost shards rebuilt by others; (5) go on with the
    round. What a step has done stays done, so an attempt that finds nothing lost changes nothing.

    Args:
        core: What the parts of the fleet share.
        rounds: The rule of its rounds, which knows what is to be sent, fenced off and asked for again.
    """

    def __init__(self, core: Core, rounds: Rounds) -> None:
        self._core, self._rounds = core, rounds

    def recover(self) -> None:
        """Find out what is lost and have it done again; harmless if nothing is.

        Raises:
            StatesLostError: Processes die too fast, or states are lost for good.
            PisaError: More processes have died than the run goes on after.
        """
        try_again(self._attempt, lambda: time.sleep(BETWEEN_ATTEMPTS), "their shards can be rebuilt")

    def _attempt(self) -> None:
        core, state = self._core, self._core.state
        self._find_dead()
        if state.lacks_round:
            # Its calls run out of order, so nothing may be asked of it before it is set up. Core.wait would give up
            # when another process dies.
            core.elastic.await_start(state.consensus)
            answer(state.consensus.ready, "start")
            self._rounds.send_again()
            state.lacks_round = False
        core.assignment.sort_adoptions()
        self._rounds.fence()
        if core.assignment.lost:
            if not core.crew.members:
                core.elastic.staff()
            self._rounds.rebuild()
        if state.round is not None:
            self._rounds.go_on()
        else:
            core.wait([adoption.done for adoption in core.assignment.adopting], "take in shards")
            core.assignment.note_arrivals()
        state.suspect = False

    def _find_dead(self) -> None:
        """Take note of who is gone, and start another consensus if it is."""
        core, state = self._core, self._core.state
        gone = core.crew.dead([state.consensus])
        is_new = state.lacks_round or state.consensus in gone
        gone += [m for m in core.crew.members if m not in gone and self._is_uncertain(m, is_new=is_new)]
        for member in [process for process in gone if isinstance(process, Member)]:
            frozen = member.pulse is not None and not is_ready([member.pulse[0]])
            core.crew.dismiss(member)
            core.deaths.add_worker(member.shards, accident=frozen or not core.elastic.is_staying(member))
            core.tell(
                "worker_died",
                worker=member.id,
                pid=member.info.pid if member.info else None,
                shards=member.shards,
                message="frozen: no pulse" if frozen else "gone",
            )
            core.assignment.lose(list(member.shards), by=member)
        if state.consensus in gone:
            processes.end(state.consensus.actor)
            core.tell("consensus_died")
            reference = core.crew.reference
            state.consensus, state.published = start_consensus(core.node, reference, state.done + 1, state.published)
            core.deaths.add_consensus()
            state.lacks_round = state.lacks_standing = True
        core.deaths.check(state.done + 1)

    def _is_uncertain(self, member: Member, *, is_new: bool) -> bool:
        """Return whether a worker that answers has lost a call: nobody knows what it did, so it counts as dead.

        Args:
            member: The worker.
            is_new: Whether the consensus is new, so that what became of the worker's messages tells nothing.
        """
        core = self._core
        calls = [adoption.done for adoption in core.assignment.adopting if adoption.member is member]
        deliveries = core.state.round.deliveries.values() if core.state.round is not None else ()
        calls += [delivery.report for delivery in deliveries if delivery.member is member]
        if any(lost.direct for lost in map(how_lost, calls) if lost):
            return True
        for delivery in deliveries:
            if delivery.added is None or delivery.member is not member or is_new:
                continue
            if lost := how_lost(delivery.added):
                if lost.direct:
                    raise GoneError("the consensus process has died just now")
                return True  # its messages cannot be fetched
        return False
