"""Shards with different parts of the input space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pisa_ray.data.base import Source
from pisa_ray.data.partitions.partition import Partition, check_rows
from pisa_ray.fields import Count
from pisa_ray.later import torch


@dataclass(frozen=True)
class ByFeature(Partition):
    """Rows sorted by a feature and cut into equal sections, so that the shards' ranges of it do not overlap.

    Sizes differ by at most one row. Rows with equal values stay in order and may lie on both sides of a cut.

    Attributes:
        shards: The number of shards.
        column: The column to sort by. None: the mean of the stored inputs of a row, such as the brightness of an image,
            for which all inputs are read once, piece by piece.
    """

    kind: ClassVar[str] = "by_feature"

    shards: Count
    column: str | None = None

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cut the sorted rows; the seed plays no part. See `Partition.split`."""
        check_rows(source, self.shards)
        values = source.column(self.column) if self.column is not None else _sums(source)
        order = np.argsort(values, kind="stable").astype(np.int64, copy=False)
        return [np.sort(run) for run in np.array_split(order, self.shards)]


def _sums(source: Source) -> np.ndarray:
    """Add up each row's inputs, float64, shape (rows,), in a fixed order so that every machine sorts alike."""
    parts = []
    for piece in source.pieces():
        inputs, _ = source.read(piece).batch(np.arange(len(piece)))
        total = torch.zeros(len(piece), dtype=torch.float64)
        for entries in inputs.reshape(len(piece), -1).T.contiguous():
            total += entries
        parts.append(total.numpy())
    return np.concatenate(parts)
