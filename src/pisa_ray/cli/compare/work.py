"""Equal work: how many rounds a row gets for what the base's rounds of one gradient a shard cost."""

from __future__ import annotations

from collections.abc import Sequence

from pisa_ray.algorithm import Method
from pisa_ray.cli.config import Config


def reporting(config: Config, shards: int) -> float:
    """Share of the shards that report in a round (but the first), as a whole number of shards."""
    return max(1, round(config.participation * shards)) / shards


def samples_a_round(config: Config, method: Method | None, shards: Sequence[int]) -> float:
    """Gradients of single rows that a shard computes in a round, on average over shards and rounds.

    Args:
        config: Its batch size and participation.
        method: What is computed; None: one mini-batch gradient, by every shard.
        shards: Rows of each shard.
    """
    batches = [rows if config.batch_size == "full" else min(config.batch_size, rows) for rows in shards]
    if method is None:
        return sum(batches) / len(shards)
    each = [method.gradients(rows, batch) * batch for rows, batch in zip(shards, batches, strict=True)]
    return reporting(config, len(shards)) * sum(each) / len(shards)


def rounds_at_equal_work(equal: str, base: Config, row: Config, method: Method, shards: Sequence[int]) -> int:
    """The rounds of a row that do the work of the base's.

    Args:
        equal: What is equal: "gradients", "bytes" (vectors sent) or "rounds".
        base: The configuration without a row: its rounds and batch size set the work.
        row: The configuration with it.
        method: The row's method.
        shards: Rows of each shard.
    """
    if equal == "rounds":
        return base.rounds
    if equal == "bytes":
        return _nearest(base.rounds / (reporting(row, len(shards)) * method.vectors))
    return _nearest(base.rounds * samples_a_round(base, None, shards) / samples_a_round(row, method, shards))


def in_proportion(every: int, base_rounds: int, rounds: int) -> int:
    """How often something happens in so many rounds that happens every so often in the base's.

    Example:
        >>> in_proportion(20, 200, 50)
        5
    """
    return _nearest(every * rounds / base_rounds)


def _nearest(x: float) -> int:
    return max(1, int(x + 0.5))
