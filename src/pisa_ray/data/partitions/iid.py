"""Shards that are alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pisa_ray.data.base import Source
from pisa_ray.data.partitions.partition import Partition, check_rows, shuffled
from pisa_ray.fields import Count


@dataclass(frozen=True)
class IID(Partition):
    """Shuffled rows, dealt out equally.

    Attributes:
        shards: The number of shards.
    """

    kind: ClassVar[str] = "iid"

    shards: Count

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cut the data into parts whose sizes differ by one row at most; see `Partition.split`."""
        check_rows(source, self.shards)
        return [np.sort(part) for part in np.array_split(shuffled(source.rows, seed), self.shards)]
