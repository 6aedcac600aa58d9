"""Which worker hosts which shards."""

from __future__ import annotations

from collections.abc import Sequence


def place(costs: Sequence[float], paces: Sequence[float]) -> list[list[int]]:
    """Cut the shards into runs that take about the same time, one per worker, none empty.

    Runs of neighbours add up to few nodes of the canonical tree, so messages are few. Placement never changes results.

    Args:
        costs: Cost of each shard's round (its batch size), [m].
        paces: Seconds per cost of each worker, at most m of them, all above 0.

    Returns:
        Positions in `costs` by worker.

    >>> place([1, 1, 1, 1, 4], [1, 1])
    [[0, 1, 2, 3], [4]]
    >>> place([9, 1, 1], [1, 1, 1])
    [[0], [1], [2]]
    >>> place([1, 1, 1, 1, 1, 1], [1, 2])
    [[0, 1, 2, 3], [4, 5]]
    """
    speeds = [1 / pace for pace in paces]
    total, done, first, fast = sum(costs), 0.0, 0, 0.0
    placed = []
    for worker, speed in enumerate(speeds):
        left = len(speeds) - worker - 1  # workers that still need a shard each
        fast += speed
        goal, last = total * fast / sum(speeds), first + 1
        done += costs[first]
        while last < len(costs) - left and (left == 0 or done + costs[last] / 2 <= goal):
            done += costs[last]
            last += 1
        placed.append(list(range(first, last)))
        first = last
    return placed
