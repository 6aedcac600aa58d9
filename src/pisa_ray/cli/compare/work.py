"""Equal work: the rounds of a row that cost as much as the base's rounds of one gradient per shard."""

from __future__ import annotations

from collections.abc import Sequence

from pisa_ray.algorithm import Method
from pisa_ray.engine.participation import Participation, share_reporting
from pisa_ray.trainer.config import Config


def samples(config: Config, method: Method | None, shards: Sequence[int]) -> float:
    """Return the mean number of gradients of single rows in a report, with the share of the trials of online_k0.

    Args:
        config: The configuration, which has the batch size.
        method: The method; None: a report is one mini-batch gradient.
        shards: The number of rows of each shard.
    """
    batches = [config.batch_of(rows) for rows in shards]
    each = [
        batch * (method.gradients(rows, batch) if method else 1) for rows, batch in zip(shards, batches, strict=True)
    ]
    trials = config.sigma_schedule.trial_share if method and config.sigma_schedule is not None else 0.0
    return sum(each) / len(shards) * (1 + trials)


def reports(rounds: int, participation: Participation, shards: int) -> float:
    """Return how often a shard reports in a run, on average; in round 1 all report."""
    return 1 + (rounds - 1) * share_reporting(participation, shards)


def rounds_at_equal_work(equal: str, base: Config, row: Config, method: Method, shards: Sequence[int]) -> int:
    """Return the rounds of a row that do the work of the base, in whose rounds all shards report.

    Args:
        equal: The measure of work: "gradients", "bytes" (vectors sent) or "rounds".
        base: The configuration without the row, whose rounds and batch size set the work.
        row: The configuration with the row.
        method: The row's method.
        shards: The number of rows of each shard.
    """
    if equal == "rounds":
        return base.rounds
    ratio = 1 / method.vectors if equal == "bytes" else samples(base, None, shards) / samples(row, method, shards)
    share = share_reporting(row.participation, len(shards))
    return _nearest(1 + (base.rounds * ratio - 1) / share)  # in round 1 all report


def in_proportion(every: int, base_rounds: int, rounds: int) -> int:
    """Return an interval of the base's rounds in proportion to other rounds.

    Example:
        >>> in_proportion(20, 200, 50)
        5
    """
    return _nearest(every * rounds / base_rounds)


def _nearest(x: float) -> int:
    return max(1, int(x + 0.5))
