"""The data of a run: the user's description of them, and the opened sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pisa_ray import checks
from pisa_ray.errors import ConfigError
from pisa_ray.fields import FREE, Free
from pisa_ray.later import torch
from pisa_ray.named import imported, name_of
from pisa_ray.options import Options

if TYPE_CHECKING:
    from pisa_ray.data import Preprocess, Source

#: The fields that name data.
SPLITS = ("train", "test", "validation")

#: Anything that data can be opened from.
DataSource = Annotated[Any, checks.as_it_is, checks.Rule("a path, a URI or a list of them", checks.as_it_is.take)]

_COLUMNS = checks.sequence(checks.text, "a list of columns")
_NO_NUMBER = checks.Rule(
    "None, or a source such as data.test",
    lambda name, value: checks.NOT if isinstance(value, int | float) else value,
)

_DTYPE = checks.Rule(
    "'float32' or 'int64'",
    lambda name, value: {"float32": "float32", "int64": "int64"}.get(str(value).removeprefix("torch."), checks.NOT),
)


def _channels(of: checks.Rule) -> checks.Rule:
    """Return a rule for a tuple of numbers, one per channel, or for one number."""
    return of.then(lambda value: (value,)) | checks.sequence(of, "a list of numbers, one per channel")


@dataclass(frozen=True, kw_only=True)
class Data(Options):
    """Training and test data and how rows become model inputs.

    Attributes:
        train: The training rows: a Parquet file, a folder of them, a pattern such as "rows/2024-*.parquet" or a list of
            these, each a path or a URI. In Python also tables of pyarrow, pandas or polars, dictionaries of arrays,
            lists of dictionaries, Hugging Face data sets, data sets of ray.data, map-style torch data sets of (input,
            target) pairs or of dictionaries, pairs of arrays (inputs, targets), or "digits".
        test: The test rows, of the same kinds; None: there are no test metrics.
        input: The column of the inputs (images, lists of numbers), or several columns of single numbers, which are
            stacked; not for pairs and digits.
        label: The column of the targets: integers from 0 are classes (cross-entropy, accuracy), real numbers are a
            regression (mean squared error).
        validation: The share of the rows of each shard that is held out, or separate rows of the same kinds as `test`;
            None: there are none. Tuning and best values should use these and never the test rows.
        scale: The factor on stored numbers; None: 1/255 for images of bytes, else 1.
        mean: What is subtracted after scaling, one number per channel or one for all; None: for colour images of bytes
            the mean of the training rows, else 0.
        std: The divisor after that, given together with `mean`; None: as for the mean, else 1.
        transform: A function (stored inputs [b, ...], training or not) -> model inputs, in place of scale, mean, std
            and dtype. Random numbers that it draws from the global generators of torch, numpy or Python are keyed by
            (seed, shard, report).
        dtype: The type of the inputs of the model; None: int64 for integers that are neither scaled nor images of
            bytes, else float32. Columns of single numbers are a row of float32, unless "int64" is given.
        dataset: In a file, "digits" in place of train, test, input and label: data of the library itself, 1,437
            training and 360 test images of 8x8.
    """

    example: ClassVar[str] = "{dataset: digits}"
    text: ClassVar[str] = "data such as Data(train='rows.parquet', input='x', label='y')"
    beside: ClassVar[Mapping[str, Any]] = {"dataset": Literal["digits"] | None}

    train: Annotated[DataSource, FREE]  # data are known by their content, wherever they lie
    test: Annotated[DataSource, FREE] = None
    input: Annotated[str | tuple[str, ...], checks.text | _COLUMNS] | None = None
    label: str | None = None
    validation: Annotated[Any, checks.number(above=0, below=1) | _NO_NUMBER, Free(int, float)] = None
    scale: float | None = None
    mean: Annotated[tuple[float, ...], _channels(checks.number())] | None = None
    std: Annotated[tuple[float, ...], _channels(checks.number(above=0))] | None = None
    transform: Callable[..., Any] | str | None = None
    dtype: Annotated[str, _DTYPE] | None = None

    @classmethod
    def spelled(cls, values: dict[str, Any], path: str) -> dict[str, Any]:
        """Override `Options.spelled`: `dataset: digits` stands for train and test."""
        dataset = values.pop("dataset", None)
        if (dataset is None) == (values.get("train") is None):
            raise ConfigError(f"{path} needs either train (a Parquet file or folder) or dataset: digits, and not both.")
        if dataset is None:
            return values
        checks.choice("digits")(f"{path}.dataset", dataset)
        for name in ("test", "input", "label"):
            if values.get(name) is not None:
                raise ConfigError(f"{path}.{name} is given, but {path}.dataset {dataset} has its own: leave it out.")
        return values | {"train": "digits", "test": "digits:test"}

    def by_key(self) -> dict[str, Any]:
        """Override `Options.by_key`: paths are absolute, so that they are found from anywhere."""
        digits = isinstance(self.train, str) and self.train == "digits"
        found = {"dataset": "digits" if digits else None, **super().by_key()}
        for name in SPLITS:
            found[name] = None if digits and name != "validation" else _recorded(getattr(self, name))
        return found

    def open(self, *, keep: bool = False, pinned: bool = False) -> Opened:
        """Open the sources, and refuse data that cannot be used.

        Args:
            keep: Decode each source once and keep it in memory, for several runs of one process.
            pinned: Whether shards are pinned. Then this process looks at no inputs, and a bad one is found where it is
                read.
        """
        from pisa_ray.data import DTYPES, check_alike, default_preprocess, kept, open_source

        dtype = DTYPES[self.dtype] if self.dtype is not None else None

        def source(name: str, spec: Any) -> Source:
            integers = dtype == torch.int64
            opened = open_source(spec, input=self.input, label=self.label, integers=integers, name=f"data.{name}")
            return kept(opened) if keep else opened

        train = source("train", self.train)
        test = source("test", self.test) if self.test is not None else None
        share = self.validation if isinstance(self.validation, float) else None
        validation = source("validation", self.validation) if self.validation is not None and share is None else None
        for name, other in (("train", train), ("test", test), ("validation", validation)):
            if other is not None:
                other.check(f"data.{name}", inputs=self.transform is None and not pinned)
                check_alike(train, other, f"data.{name}")
        input_, label = (
            ("features", "label")
            if isinstance(self.train, str) and self.train == "digits"
            else (self.input, self.label)
        )
        transform = imported(self.transform, "data.transform") if isinstance(self.transform, str) else self.transform
        preprocess = default_preprocess(
            train, scale=self.scale, mean=self.mean, std=self.std, transform=transform, dtype=dtype
        )
        return Opened(train, test, validation, share, preprocess, input_, label)


def absolute(place: Any, base: Path) -> Any:
    """Return the place of data, with local paths made absolute.

    Args:
        place: A path, a URI or a name, or a list of such; anything else is returned unchanged.
        base: The folder that paths are relative to.
    """
    if isinstance(place, list | tuple):
        return [absolute(one, base) for one in place]
    return str((base / place).resolve()) if is_local(place) else place


def is_local(place: Any) -> bool:
    """Return whether data are in a path on this machine."""
    return isinstance(place, str | Path) and "://" not in str(place) and place not in ("digits", "digits:test")


def _recorded(place: Any) -> Any:
    if place is None or isinstance(place, int | float | str | PathLike):
        return absolute(fspath(place) if isinstance(place, PathLike) else place, Path.cwd())
    several = isinstance(place, list | tuple) and all(isinstance(one, str | PathLike) for one in place)
    return [_recorded(one) for one in place] if several else name_of(place)


@dataclass(frozen=True)
class Opened:
    """Data that have been opened and checked."""

    train: Source
    test: Source | None
    validation: Source | None
    held_out_share: float | None
    preprocess: Preprocess
    input: str | Sequence[str] | None = None
    label: str | None = None

    def outputs(self) -> int:
        """Return the number of outputs that a model needs: the classes of the training data, or 1 for regression.

        Raises:
            ConfigError: If the labels do not determine it.
        """
        from pisa_ray.trainer.labels import classes_of

        return classes_of(self.train)
