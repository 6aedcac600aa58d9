"""Shards of uneven sizes."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pisa_ray.data.base import Source
from pisa_ray.data.keys import generator
from pisa_ray.data.partitions.partition import Partition, check_rows, shuffled
from pisa_ray.errors import ConfigError
from pisa_ray.fields import Count, Positive

#: The most random cuts that are tried until every shard has its minimum.
TRIES = 1000


@dataclass(frozen=True)
class Uneven(Partition, ABC):
    """Shares drawn from a Dirichlet distribution.

    Attributes:
        shards: The number of shards.
        alpha: The concentration; a smaller one gives more uneven shares.
        min_rows: The smallest number of rows of a shard.
    """

    shards: Count
    alpha: Positive = 0.5
    min_rows: Count = 10

    def _too_uneven(self) -> ConfigError:
        return ConfigError(
            f"partition.alpha is {self.alpha}, but {TRIES} random cuts into {self.shards} shards all left one with "
            f"fewer than {self.min_rows} rows: use a larger alpha, fewer shards or a smaller min_rows."
        )


@dataclass(frozen=True)
class QuantitySkew(Uneven):
    """Shuffled rows, dealt out in shares drawn from a Dirichlet distribution."""

    kind: ClassVar[str] = "quantity"

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cut the data into parts of uneven sizes; see `Partition.split`."""
        check_rows(source, self.shards, self.min_rows)
        random = generator(seed, "partition.quantity")
        for _ in range(TRIES):
            cut = borders(random.dirichlet(np.full(self.shards, self.alpha)), source.rows)
            if np.diff(cut).min() >= self.min_rows:
                return [np.sort(part) for part in np.split(shuffled(source.rows, seed), cut[1:-1])]
        raise self._too_uneven()


def borders(shares: np.ndarray, rows: int) -> np.ndarray:
    """Return the borders, from 0 to rows, of parts with given relative shares; int64, shape (parts + 1,)."""
    at = (np.cumsum(shares / shares.sum()) * rows).astype(np.int64)
    at[-1] = rows
    return np.concatenate(([0], at))
