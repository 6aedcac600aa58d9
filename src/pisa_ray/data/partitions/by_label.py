"""Shards with few labels, or with uneven shares of each label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pisa_ray.data.base import Source
from pisa_ray.data.keys import generator
from pisa_ray.data.partitions.by_size import TRIES, Uneven, borders
from pisa_ray.data.partitions.partition import Partition, check_rows, groups
from pisa_ray.errors import ConfigError
from pisa_ray.fields import Count


@dataclass(frozen=True)
class LabelSkew(Partition):
    """Few labels per shard: shard i holds label number i mod L and labels - 1 random others.

    The rows of a label are shuffled and dealt equally to the shards that hold it. A label that no shard holds (possible
    with fewer shards than labels) is not used.

    Attributes:
        shards: The number of shards.
        labels: The number of labels of each shard.
    """

    kind: ClassVar[str] = "labels_per_shard"

    shards: Count
    labels: Count = 1

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cut the data by label; see `Partition.split`."""
        check_rows(source, self.shards)
        by_label = rows_by_label(source, seed)
        if self.labels > len(by_label):
            raise ConfigError(
                f"partition.labels is {self.labels}, but the data have {len(by_label)} different labels: "
                f"use labels <= {len(by_label)}."
            )
        holders: list[list[int]] = [[] for _ in by_label]
        for shard in range(self.shards):
            own = shard % len(by_label)
            others = [label for label in range(len(by_label)) if label != own]
            chosen = generator(seed, "partition.labels", shard).choice(others, self.labels - 1, replace=False)
            for label in (own, *chosen):
                holders[label].append(shard)
        parts: list[list[np.ndarray]] = [[] for _ in range(self.shards)]
        for rows, shards in zip(by_label, holders, strict=True):
            for shard, part in zip(shards, np.array_split(rows, max(1, len(shards))), strict=False):
                parts[shard].append(part)
        return joined(parts)


@dataclass(frozen=True)
class Dirichlet(Uneven):
    """The rows of every label, dealt out in shares drawn from a Dirichlet distribution.

    A shard that already has an equal share of all rows gets nothing of the labels that follow. The shares are redrawn
    until every shard has min_rows.
    """

    kind: ClassVar[str] = "dirichlet"

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cut the data by label; see `Partition.split`."""
        check_rows(source, self.shards, self.min_rows)
        by_label = rows_by_label(source, seed)
        random = generator(seed, "partition.dirichlet")
        # The order of the rows is settled already; only sizes are drawn again, so a try costs hardly anything.
        for _ in range(TRIES):
            sizes = np.zeros(self.shards, np.int64)
            cuts = []
            for rows in by_label:
                # The least positive number keeps the sum positive where a tiny alpha rounds shares to 0.
                shares = random.dirichlet(np.full(self.shards, self.alpha)) + np.finfo(np.float64).tiny
                shares[sizes >= source.rows / self.shards] = 0.0
                cut = borders(shares, len(rows))
                sizes += np.diff(cut)
                cuts.append(cut)
            if sizes.min() >= self.min_rows:
                return joined(zip(*(np.split(r, c[1:-1]) for r, c in zip(by_label, cuts, strict=True)), strict=True))
        raise self._too_uneven()


def rows_by_label(source: Source, seed: int) -> list[np.ndarray]:
    """List the rows of each label in shuffled order, with the labels in sorted order."""
    labels = source.labels()
    if labels.dtype.kind == "f":
        raise ConfigError(
            "The partition goes by label, but data.label is a column of real numbers: use IID, QuantitySkew or "
            "ByColumn, or integer labels."
        )
    return [generator(seed, "partition.label", i).permutation(rows) for i, rows in enumerate(groups(labels))]


def joined(parts: Iterable[Iterable[np.ndarray]]) -> list[np.ndarray]:
    """Return the rows of each shard, ascending, given its parts."""
    shards = [np.sort(np.concatenate(list(part))) for part in parts]
    for i, rows in enumerate(shards):
        if not len(rows):
            raise ConfigError(
                f"partition.shards is {len(shards)}, but that leaves shard {i} without rows because its labels are "
                "too rare: use fewer shards or more labels a shard."
            )
    return shards
