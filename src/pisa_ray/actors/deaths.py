"""How many deaths of processes a run goes on after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pisa_ray.actors.elastic import Staffing
from pisa_ray.errors import PisaError, WorkerDiedError

#: Deaths of a shard's worker, or of the consensus, in one round that are taken for a crash and not for an accident.
DEATHS_IN_A_ROUND = 3


class Deaths:
    """Counts the deaths of a run and of the round under way.

    Args:
        staffing: The number of deaths of the run, and how many are allowed.
    """

    def __init__(self, staffing: Staffing) -> None:
        self._staffing = staffing
        self._workers: Counter[int] = Counter()  # by shard
        self._consensus = 0

    def add_worker(self, shards: Iterable[int], *, accident: bool) -> None:
        """Count the death of a worker; an accident, such as a node that left, is no sign of a crash of its shards."""
        self._staffing.deaths += 1
        if not accident:
            self._workers.update(shards)

    def add_consensus(self) -> None:
        """Count the death of the consensus process."""
        self._staffing.deaths += 1
        self._consensus += 1

    def end_round(self) -> None:
        """Begin to count anew for the next round."""
        self._workers.clear()
        self._consensus = 0

    def check(self, round_: int) -> None:
        """See whether the run may go on.

        Args:
            round_: The round under way, or the next one.

        Raises:
            WorkerDiedError: There are more deaths than `max_failures`.
            PisaError: The same shard's worker, or the consensus, died too often in this round.
        """
        deaths, most = self._staffing.deaths, self._staffing.wanted.max_failures
        if 0 <= most < deaths:
            raise WorkerDiedError(
                f"{deaths} processes died, more than max_failures {most}: resume=True goes on from the last checkpoint."
            )
        if self._consensus >= DEATHS_IN_A_ROUND:
            raise PisaError(
                f"the consensus process died {DEATHS_IN_A_ROUND} times in round {round_}: look for too little "
                "memory on the driver's node; resume=True tries again."
            )
        often = [i for i, number in self._workers.items() if number >= DEATHS_IN_A_ROUND]
        if often:
            raise PisaError(
                f"the workers of shard {often[0]} died {DEATHS_IN_A_ROUND} times in round {round_}: look for a "
                "crash in the model or for too little memory; resume=True tries again."
            )
