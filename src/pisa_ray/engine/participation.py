"""Chooses the shards that report in a round: all, a random share of them, or lists that the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pisa_ray.data import generator
from pisa_ray.errors import ConfigError

#: The share p of the shards; or lists of the shards that report in round 2, 3 and so on, which repeat.
Participation = float | Sequence[Sequence[int]]


def reporters(participation: Participation, shards: Sequence[int], seed: int, round_: int) -> Sequence[int]:
    """Return the shards that report in a round, ascending; in round 1 all.

    Args:
        participation: A share p draws max(1, round(p m)) of the m shards without replacement, keyed (seed, round).
        shards: The ids of the shards that can report, ascending. Lists may name others, too; if a list names only
            others, all of these report.
        seed: The seed of the run.
        round_: The round, from 1.
    """
    if participation == 1 or round_ == 1 or not shards:
        return shards
    if not isinstance(participation, int | float):
        present = set(shards)
        return [i for i in participation[(round_ - 2) % len(participation)] if i in present] or shards
    m = len(shards)
    number = round(share_reporting(participation, m) * m)
    return sorted(shards[k] for k in generator(seed, "reporters", round_).choice(m, number, replace=False))


def share_reporting(participation: Participation, shards: int) -> float:
    """Return the share of m shards that report in a round after the first, on average."""
    if not isinstance(participation, int | float):
        return sum(map(len, participation)) / len(participation) / shards
    return max(1, round(participation * shards)) / shards


def checked_participation(value: Any, shards: int) -> Participation:
    """Return the participation that the user gives, with sorted lists.

    Raises:
        ConfigError: If it lists shards that do not exist.
    """
    if isinstance(value, int | float):
        return value
    lists = tuple(tuple(sorted(some)) for some in value)
    if not lists:
        raise ConfigError("participation is an empty list: give the shards of each round, such as [[0, 1], [2, 3]].")
    for k, some in enumerate(lists):
        if not some or len(set(some)) < len(some) or not (some[0] >= 0 and some[-1] < shards):
            raise ConfigError(
                f"participation[{k}] is {list(some)}, but it must name one or more of the shards 0 to {shards - 1}, "
                "each once."
            )
    return lists
