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


def check_cut(partition: Partition, cut: Sequence[np.ndarray], rows: int) -> None:
    """Refuse a cut that is none: each shard has rows that exist, in ascending order, and no other shard has them.

    Args:
        partition: The recipe, which may be the user's own.
        cut: What its `split` returned.
        rows: The number of rows of the data.

    Raises:
        ConfigError: If it is none; says which shard is wrong.
    """
    name, taken = type(partition).__name__, np.zeros(rows, dtype=bool)
    for i, shard in enumerate(cut):
        numbers = np.asarray(shard)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers):
            raise ConfigError(f"{name}.split gives shard {i} no list of row numbers: give each shard at least one.")
        if numbers[0] < 0 or numbers[-1] >= rows or not (np.diff(numbers) > 0).all():
            raise ConfigError(
                f"{name}.split gives shard {i} row numbers that are not ascending, or not among 0 to {rows - 1}: sort "
                "them, and list each once."
            )
        if taken[numbers].any():
            raise ConfigError(
                f"{name}.split gives row {numbers[taken[numbers]][0]} to shard {i} and to another one, but shards must "
                "not share rows: give each row to one shard at most."
            )
        taken[numbers] = True
    if not len(cut):
        raise ConfigError(f"{name}.split gives no shards: give at least one.")


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
        most = source.rows // min_rows
        remedies = [f"shards <= {most}"] * (most > 0) + ["smaller min_rows"] * (min_rows > 1)
        remedy = " or ".join(remedies)
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
