"""One shard for each value of a column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pisa_ray.data.base import Source
from pisa_ray.data.partitions.partition import Partition, groups


@dataclass(frozen=True)
class ByColumn(Partition):
    """One shard for each value of a column (a site, a customer, a language), in sorted order.

    Attributes:
        column: The column with a shard for each of its values.
    """

    kind: ClassVar[str] = "by_column"

    column: str

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cut the data by value; the seed plays no part. See `Partition.split`."""
        values = source.column(self.column)
        return groups(values)
