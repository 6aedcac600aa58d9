"""Which worker hosts which shards."""

from __future__ import annotations

from collections.abc import Sequence


def place(costs: Sequence[float], workers: int) -> list[list[int]]:
    """Cut the shards into runs of about equal cost, one per worker, none empty.

    Runs of neighbours add up to few nodes of the canonical tree, so messages are few. Placement never changes results.

    Args:
        costs: Cost of each shard's round (its batch size), [m].
        workers: At most m.

    Returns:
        Shard ids by worker.

    >>> place([1, 1, 1, 1, 4], 2)
    [[0, 1, 2, 3], [4]]
    >>> place([9, 1, 1], 3)
    [[0], [1], [2]]
    """
    total, done, first = sum(costs), 0.0, 0
    placed = []
    for worker in range(workers):
        left = workers - worker - 1  # workers that still need a shard each
        goal, last = total * (worker + 1) / workers, first + 1
        done += costs[first]
        while last < len(costs) - left and (left == 0 or done + costs[last] / 2 <= goal):
            done += costs[last]
            last += 1
        placed.append(list(range(first, last)))
        first = last
    return placed
