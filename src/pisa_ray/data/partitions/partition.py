"""The base of all partitions, which cut the training rows into shards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pisa_ray.data.base import Source
from pisa_ray.data.distortions.distortion import Distortion
from pisa_ray.data.keys import generator
from pisa_ray.errors import ConfigError
from pisa_ray.kinds import Kind


class Partition(Kind, ABC, family="partition", homes=("pisa_ray.data.partitions",)):
    """A way to cut a source into shards.

    Attributes:
        distort: In a file, a change of the rows of the shards, with any kind of partition, or a list of such changes;
            None: there is none.
    """

    text: ClassVar[str] = "a partition such as IID(shards=10)"
    usual: ClassVar[str] = "iid"
    beside: ClassVar[Mapping[str, Any]] = {"kind": str, "distort": Distortion | None}
    example: ClassVar[str] = "{kind: iid, shards: 10}"

    @abstractmethod
    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cut the data.

        Args:
            source: The training data; most partitions read at most one column of it.
            seed: The run's seed; the cut is a function of the seed, the partition and the data.

        Returns:
            Each shard's row numbers: int64, ascending, at least one, pairwise disjoint.

        Raises:
            ConfigError: If the data cannot be cut like this.
        """

    @property
    def distortions(self) -> tuple[Distortion, ...]:
        """The distortions of the shards' rows, in order; only `FeatureNoise` and `Distorted` have any."""
        return ()

    @classmethod
    def read(cls, values: Any, path: str) -> Any:
        """See Options; `distort` in the section of a partition makes it a `Distorted`."""
        if not isinstance(values, Mapping):
            return super().read(values, path)
        from pisa_ray.data.partitions.distorted import Distorted

        distort = values.get("distort")
        partition = super().read({key: value for key, value in values.items() if key != "distort"}, path)
        for one in distort if isinstance(distort, list) else [] if distort is None else [distort]:
            partition = Distorted(partition, Distortion.read(one, f"{path}.distort"))
        return partition


def hold_out(shards: Sequence[np.ndarray], share: float, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Split a random validation share off every shard.

    Args:
        shards: Each shard's row numbers.
        share: The share held out, in [0, 1), rounded to whole rows; every shard keeps at least one row for training.
        seed: The run's seed.

    Returns:
        The training rows and the validation rows of each shard, ascending; the latter may be empty.
    """
    training, validation = [], []
    for i, rows in enumerate(shards):
        count = min(round(share * len(rows)), len(rows) - 1)
        mixed = generator(seed, "validation", i).permutation(rows)
        training.append(np.sort(mixed[count:]))
        validation.append(np.sort(mixed[:count]))
    return training, validation


def check_rows(source: Source, shards: int, min_rows: int = 1) -> None:
    """Refuse more shards than the rows suffice for, given the smallest number of rows of a shard."""
    if shards * min_rows > source.rows:
        needed = f"{shards * min_rows} rows for at least {min_rows} a shard" if min_rows > 1 else "one row a shard"
        remedy = f"shards <= {source.rows // min_rows}" + (" or smaller min_rows" if min_rows > 1 else "")
        raise ConfigError(
            f"partition.shards is {shards}, which takes {needed}, but the data have {source.rows} rows: use {remedy}."
        )


def shuffled(rows: int, seed: int) -> np.ndarray:
    """Return all row numbers in the run's order."""
    return generator(seed, "partition.rows").permutation(rows).astype(np.int64, copy=False)


def groups(values: np.ndarray) -> list[np.ndarray]:
    """List the rows of each value, ascending, with the values in sorted order."""
    _, codes = np.unique(values, return_inverse=True)
    order = np.argsort(codes, kind="stable").astype(np.int64, copy=False)
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
