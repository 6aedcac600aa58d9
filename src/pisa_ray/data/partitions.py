"""How the training rows are cut into shards: the recipes of the NIID-Bench study, and the user's own cuts."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pisa_ray import checks
from pisa_ray.data.base import Source
from pisa_ray.data.distortions import Distortion, Noise
from pisa_ray.data.keys import generator
from pisa_ray.errors import ConfigError

#: What a number of shards may be.
SHARDS = checks.whole(least=1)

TRIES = 1000  # random cuts tried until every shard has its minimum


class Partition(ABC):
    """A recipe for cutting a source into shards."""

    kind: ClassVar[str]

    @abstractmethod
    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cuts the data.

        Args:
            source: The training data; at most one column of it is read, unless a partition says otherwise.
            seed: The run's seed; the cut is a function of it, the recipe and the data.

        Returns:
            Each shard's row numbers: int64, ascending, at least one, pairwise disjoint.

        Raises:
            ConfigError: If the data cannot be cut like this.
        """

    @property
    def distortions(self) -> tuple[Distortion, ...]:
        """What is done to the shards' rows, in this order: nothing except for `FeatureNoise` and `Distorted`."""
        return ()


@dataclass(frozen=True)
class IID(Partition):
    """Shuffled rows, dealt out equally.

    Attributes:
        shards: How many shards.
    """

    kind: ClassVar[str] = "iid"
    shards: int

    def __post_init__(self) -> None:
        checks.settle(self, shards=SHARDS)

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cuts the data into parts whose sizes differ by one row at most; see `Partition.split`."""
        check_rows(source, self.shards)
        return [np.sort(part) for part in np.array_split(_shuffled(source.rows, seed), self.shards)]


@dataclass(frozen=True)
class LabelSkew(Partition):
    """Few labels a shard: shard i holds label number i mod L and labels - 1 random others.

    The rows of a label are shuffled and dealt equally to the shards that hold it. A label that no shard holds (possible
    with fewer shards than labels) is not used.

    Attributes:
        shards: How many shards.
        labels: How many labels each shard holds; default 1.
    """

    kind: ClassVar[str] = "labels_per_shard"
    shards: int
    labels: int = 1

    def __post_init__(self) -> None:
        checks.settle(self, shards=SHARDS, labels=checks.whole(least=1))

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cuts the data by label; see `Partition.split`."""
        check_rows(source, self.shards)
        by_label = _rows_by_label(source, seed)
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
        return _joined(parts)


@dataclass(frozen=True)
class Dirichlet(Partition):
    """Every label's rows dealt out in shares drawn from a Dirichlet distribution.

    A shard that already has its equal share of all rows gets nothing of the labels that follow. The cut is redrawn
    until every shard has min_rows.

    Attributes:
        shards: How many shards.
        alpha: The smaller, the more uneven; positive, default 0.5.
        min_rows: Rows every shard has at least; default 10.
    """

    kind: ClassVar[str] = "dirichlet"
    shards: int
    alpha: float = 0.5
    min_rows: int = 10

    def __post_init__(self) -> None:
        checks.settle(self, shards=SHARDS, alpha=checks.number(above=0), min_rows=checks.whole(least=1))

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cuts the data by label; see `Partition.split`."""
        check_rows(source, self.shards, self.min_rows)
        by_label = _rows_by_label(source, seed)
        random = generator(seed, "partition.dirichlet")
        # Which rows go where is settled already: only sizes are drawn again, so a try costs next to nothing.
        for _ in range(TRIES):
            sizes = np.zeros(self.shards, np.int64)
            cuts = []
            for rows in by_label:
                # The least positive number keeps the sum positive where a tiny alpha rounds shares to 0.
                shares = random.dirichlet(np.full(self.shards, self.alpha)) + np.finfo(np.float64).tiny
                shares[sizes >= source.rows / self.shards] = 0.0
                cut = _cut(shares, len(rows))
                sizes += np.diff(cut)
                cuts.append(cut)
            if sizes.min() >= self.min_rows:
                return _joined(zip(*(np.split(r, c[1:-1]) for r, c in zip(by_label, cuts, strict=True)), strict=True))
        raise _too_uneven(self.shards, self.alpha, self.min_rows)


@dataclass(frozen=True)
class QuantitySkew(Partition):
    """Shuffled rows, dealt out in shares drawn from a Dirichlet distribution.

    Attributes:
        shards: How many shards.
        alpha: The smaller, the more uneven; positive, default 0.5.
        min_rows: Rows every shard has at least; default 10.
    """

    kind: ClassVar[str] = "quantity"
    shards: int
    alpha: float = 0.5
    min_rows: int = 10

    def __post_init__(self) -> None:
        checks.settle(self, shards=SHARDS, alpha=checks.number(above=0), min_rows=checks.whole(least=1))

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cuts the data into parts of uneven sizes; see `Partition.split`."""
        check_rows(source, self.shards, self.min_rows)
        random = generator(seed, "partition.quantity")
        for _ in range(TRIES):
            cut = _cut(random.dirichlet(np.full(self.shards, self.alpha)), source.rows)
            if np.diff(cut).min() >= self.min_rows:
                return [np.sort(part) for part in np.split(_shuffled(source.rows, seed), cut[1:-1])]
        raise _too_uneven(self.shards, self.alpha, self.min_rows)


@dataclass(frozen=True)
class ByColumn(Partition):
    """One shard for each value of a column (a site, a customer, a language), in sorted order.

    Attributes:
        column: The column's name.
    """

    kind: ClassVar[str] = "by_column"
    column: str

    def __post_init__(self) -> None:
        checks.settle(self, column=checks.text)

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cuts the data by value; the seed plays no part. See `Partition.split`."""
        values = source.column(self.column)
        return _groups(values)


@dataclass(frozen=True)
class FeatureNoise(Partition):
    """Shuffled rows, dealt out equally; shard i's inputs get noise of standard deviation level * i / (shards - 1).

    The same as `Distorted(IID(shards), Noise(level))`.

    Attributes:
        shards: How many shards.
        level: The last shard's standard deviation, in units of the preprocessed inputs; not negative.
    """

    kind: ClassVar[str] = "feature_noise"
    shards: int
    level: float

    def __post_init__(self) -> None:
        checks.settle(self, shards=SHARDS, level=checks.number(least=0))

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cuts the data as `IID` does; see `Partition.split`."""
        return IID(self.shards).split(source, seed)

    @property
    def distortions(self) -> tuple[Distortion, ...]:
        """Noise that grows from shard to shard."""
        return (Noise(self.level),)


@dataclass(frozen=True)
class Distorted(Partition):
    """Any partition, with something done to its shards' rows, such as `Distorted(LabelSkew(10), Rotate(36))`.

    Attributes:
        partition: Which rows each shard has; may be `Distorted` itself, whose distortion then comes first.
        distortion: What is done to them.
    """

    kind: ClassVar[str] = "distorted"
    partition: Partition
    distortion: Distortion

    def __post_init__(self) -> None:
        checks.settle(
            self,
            partition=checks.instance("a partition such as IID(shards=10)", Partition),
            distortion=checks.instance("a distortion such as Rotate(step=36)", Distortion),
        )

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cuts the data as the partition does; see `Partition.split`."""
        return self.partition.split(source, seed)

    @property
    def distortions(self) -> tuple[Distortion, ...]:
        """The partition's own, then this one."""
        return (*self.partition.distortions, self.distortion)


@dataclass(frozen=True)
class Indices(Partition):
    """The user's own cut. Rows that no shard lists are not used.

    Attributes:
        shards: Each shard's row numbers; of a dictionary its values, in order.
    """

    kind: ClassVar[str] = "indices"
    shards: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        rows = checks.Rule("a list of at least one row number", _row_numbers)
        if isinstance(self.shards, Mapping):  # by name of the shard, say; they are numbered in this order
            object.__setattr__(self, "shards", list(self.shards.values()))
        checks.settle(self, shards=checks.sequence(rows, "a list with each shard's row numbers"))

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Checks and sorts the user's row numbers; the seed plays no part. See `Partition.split`."""
        if len(self.shards) < 1:
            raise ConfigError("partition.shards is empty, but at least 1 shard is needed: list each shard's rows.")
        parts = [np.sort(shard) for shard in self.shards]
        for i, part in enumerate(parts):
            if part[0] < 0 or part[-1] >= source.rows:
                raise ConfigError(
                    f"partition.shards has rows {part[0]} to {part[-1]} in shard {i}, but the data have rows 0 to "
                    f"{source.rows - 1}: use only these."
                )
        values, counts = np.unique(np.concatenate(parts), return_counts=True)
        if counts.max() > 1:
            raise ConfigError(
                f"partition.shards lists row {values[counts.argmax()]} more than once, but shards must not share "
                "rows: list each row at most once."
            )
        return [part.astype(np.int64) for part in parts]


def hold_out(shards: Sequence[np.ndarray], share: float, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Splits a random validation share off every shard.

    Args:
        shards: Each shard's row numbers.
        share: The share held out, in [0, 1), rounded to whole rows; every shard keeps at least one row for training.
        seed: The run's seed.

    Returns:
        The training rows and the validation rows of each shard, ascending; the latter may be empty.

    Raises:
        ConfigError: If share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ConfigError(f"data.validation is {share}, but a share in [0, 1) is expected: use e.g. 0.1.")
    training, validation = [], []
    for i, rows in enumerate(shards):
        count = min(round(share * len(rows)), len(rows) - 1)
        mixed = generator(seed, "validation", i).permutation(rows)
        training.append(np.sort(mixed[count:]))
        validation.append(np.sort(mixed[:count]))
    return training, validation


def _row_numbers(name: str, value: Any) -> Any:
    try:
        rows = np.asarray(value)
    except Exception:  # lists of unequal lengths, or whatever somebody's object raises
        return checks.NOT
    return tuple(rows.tolist()) if rows.size and rows.ndim == 1 and rows.dtype.kind in "iu" else checks.NOT


def check_rows(source: Source, shards: int, min_rows: int = 1) -> None:
    """Refuses more shards than there are rows for, at so many rows a shard."""
    if shards * min_rows > source.rows:
        needed = f"{shards * min_rows} rows for at least {min_rows} a shard" if min_rows > 1 else "one row a shard"
        remedy = f"shards <= {source.rows // min_rows}" + (" or smaller min_rows" if min_rows > 1 else "")
        raise ConfigError(
            f"partition.shards is {shards}, which takes {needed}, but the data have {source.rows} rows: use {remedy}."
        )


def _shuffled(rows: int, seed: int) -> np.ndarray:
    return generator(seed, "partition.rows").permutation(rows).astype(np.int64, copy=False)


def _groups(values: np.ndarray) -> list[np.ndarray]:
    """Lists each value's rows, ascending, values in sorted order."""
    _, codes = np.unique(values, return_inverse=True)
    order = np.argsort(codes, kind="stable").astype(np.int64, copy=False)
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _rows_by_label(source: Source, seed: int) -> list[np.ndarray]:
    """Lists each label's rows in shuffled order, labels in sorted order."""
    labels = source.labels()
    if labels.dtype.kind == "f":
        raise ConfigError(
            "The partition goes by label, but data.label is a column of real numbers: use IID, QuantitySkew or "
            "ByColumn, or integer labels."
        )
    return [generator(seed, "partition.label", i).permutation(rows) for i, rows in enumerate(_groups(labels))]


def _cut(shares: np.ndarray, rows: int) -> np.ndarray:
    """Gives the borders, from 0 to rows, of parts with these relative shares; int64, shape (parts + 1,)."""
    borders = (np.cumsum(shares / shares.sum()) * rows).astype(np.int64)
    borders[-1] = rows
    return np.concatenate(([0], borders))


def _joined(parts: Iterable[Iterable[np.ndarray]]) -> list[np.ndarray]:
    shards = [np.sort(np.concatenate(list(part))) for part in parts]
    for i, rows in enumerate(shards):
        if not len(rows):
            raise ConfigError(
                f"partition.shards is {len(shards)}, but that leaves shard {i} without rows because its labels are "
                "too rare: use fewer shards or more labels a shard."
            )
    return shards


def _too_uneven(shards: int, alpha: float, min_rows: int) -> ConfigError:
    return ConfigError(
        f"partition.alpha is {alpha}, but {TRIES} random cuts into {shards} shards all left one with fewer than "
        f"{min_rows} rows: use a larger alpha, fewer shards or a smaller min_rows."
    )
