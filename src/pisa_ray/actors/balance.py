"""The cut of shards into runs of neighbours that take all workers about the same time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from pisa_ray.actors.crew import Member

#: For workers of unequal speed: rounds between two looks, and the gain, as a ratio and in seconds, worth a move.
EVERY, GAIN, SECONDS = 10, 1.25, 0.02


def cut_into_runs(costs: Sequence[float], paces: Sequence[float]) -> list[list[int]]:
    """Cut shards into runs that take about the same time, one per worker, none empty.

    Runs of neighbours add up to few nodes of the canonical tree, so messages are few.
    Who hosts what never changes results.

    Args:
        costs: Cost of each shard's round (its batch size), [m].
        paces: Seconds per cost of each worker, at most m of them, all above 0.

    Returns:
        Positions in `costs` by worker.

    >>> cut_into_runs([1, 1, 1, 1, 4], [1, 1])
    [[0, 1, 2, 3], [4]]
    >>> cut_into_runs([9, 1, 1], [1, 1, 1])
    [[0], [1], [2]]
    >>> cut_into_runs([1, 1, 1, 1, 1, 1], [1, 2])
    [[0, 1, 2, 3], [4, 5]]
    """
    speeds = [1 / pace for pace in paces]
    total, done, first, fast = sum(costs), 0.0, 0, 0.0
    runs = []
    for worker, speed in enumerate(speeds):
        left = len(speeds) - worker - 1  # workers that still need a shard each
        fast += speed
        goal, last = total * fast / sum(speeds), first + 1
        done += costs[first]
        while last < len(costs) - left and (left == 0 or done + costs[last] / 2 <= goal):
            done += costs[last]
            last += 1
        runs.append(list(range(first, last)))
        first = last
    return runs


class Balance:
    """Cuts shards by the measured paces of workers.

    Args:
        costs: Cost of each shard's report (the rows it goes through), by id.

    Attributes:
        done: The round after which shards were assigned anew last.
    """

    def __init__(self, costs: Mapping[int, float]) -> None:
        self._costs, self.done, self._every = costs, 0, EVERY

    def change(self, costs: Mapping[int, float]) -> None:
        """Go on with other shards."""
        self._costs = costs

    def cut(self, shards: Sequence[int], members: Sequence[Member]) -> list[list[int]]:
        """Cut some shards, in order, into a run for each of at most as many workers."""
        runs = cut_into_runs([self._costs[i] for i in shards], self._paces(members))
        return [[shards[k] for k in run] for run in runs]

    def load(self, shards: Iterable[int]) -> float:
        """Return the cost of some shards."""
        return sum(self._costs[i] for i in shards)

    def plans(self, shards: Sequence[int], members: Sequence[Member], newcomers: int) -> list[Sequence[int]]:
        """Return which of some shards each newcomer will host beside the members, if nothing else changes."""
        paces = (self._paces(members) + [self._usual(members)] * newcomers)[: len(shards)]
        runs = cut_into_runs([self._costs[i] for i in shards], paces)
        return [[shards[k] for k in run] for run in runs[-newcomers:]]

    def note(self, member: Member, shards: Sequence[int], seconds: float) -> None:
        """Take note of how long a worker took to step some shards; with none there is nothing to learn."""
        if not shards:
            return
        pace = seconds / sum(self._costs[i] for i in shards)
        member.pace = 0.8 * member.pace + 0.2 * pace if member.pace else pace

    def is_uneven(
        self,
        hosted: Mapping[Member, Sequence[int]],
        then: Callable[[], Mapping[Member, Sequence[int]]],
        done: int,
    ) -> bool:
        """Return whether shards should be assigned anew after a round: a worker has none, or some are much slower.

        Args:
            hosted: What each worker hosts.
            then: Returns what each would host.
            done: The round.
        """
        if not all(hosted.values()) and any(some and not hosted[m] for m, some in then().items()):
            return True
        hosts = [m for m, shards in hosted.items() if shards]
        if done - self.done < self._every or len(hosts) < 2 or any(m.pace == 0 for m in hosts):
            return False
        self.done = done
        now = max(m.pace * self.load(hosted[m]) for m in hosts)
        after = max(m.pace * self.load(shards) for m, shards in then().items())
        if now < GAIN * after or now - after < SECONDS:
            return False
        self._every *= 2  # so that noise does not move shards for ever
        return True

    def _usual(self, members: Sequence[Member]) -> float:
        known = [m.pace for m in members if m.pace]
        return statistics.median(known) if known else 1.0

    def _paces(self, members: Sequence[Member]) -> list[float]:
        usual = self._usual(members)
        return [m.pace or usual for m in members]
