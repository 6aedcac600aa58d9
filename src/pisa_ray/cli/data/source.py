"""What every format reads from, and what it gives."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pisa_ray.errors import ConfigError

_PACKED = b"\x1f\x8b"


@dataclass(frozen=True)
class Asked:
    """What the user asks for.

    Attributes:
        name: One of KINDS.
        source: A folder, or a file.
        split: "train" or "test".
        label: The label column of a CSV file.
        classes: The names of classes in the order of their numbers; None: those that are found, sorted.
    """

    name: str
    source: Path
    split: str = "train"
    label: str = ""
    classes: list[str] | None = None

    def file(self, *names: str) -> Path:
        """The file in the folder that has one of some names, in whatever case, packed by gzip or not.

        Raises:
            ConfigError: If there is none.
        """
        found = {path.name.lower().removesuffix(".gz"): path for path in entries(self.source) if path.is_file()}
        for name in names:
            if name in found:
                return found[name]
        raise ConfigError(
            f"{self.source} has no file {names[0]} (or {names[0]}.gz): give --from the folder that has it, or download "
            f"the usual files of {self.name}."
        )


@dataclass(frozen=True)
class Made:
    """Rows for a Parquet file.

    Attributes:
        schema: The columns.
        tables: The rows, in tables of these columns.
    """

    schema: pa.Schema
    tables: Iterable[pa.Table]


def entries(folder: Path) -> list[Path]:
    """What a folder has, by name, without what is hidden.

    Raises:
        ConfigError: If it is no folder that can be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"--from is {str(folder)!r}, but it must be a folder ({error.strerror}).") from error


def contents(path: Path) -> bytes:
    """The bytes of a file, unpacked if gzip has packed them, whatever its name.

    Raises:
        ConfigError: If it cannot be read or unpacked.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): give --from a file that can.") from error
    if not data.startswith(_PACKED):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be unpacked ({error}): download it again.") from error


def text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        ConfigError: If it cannot be read, or is something else.
    """
    data = contents(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: this is not text in UTF-8; save the file in UTF-8.") from error


def lists(asked: Asked, column: str, values: np.ndarray, labels: np.ndarray, **about: Any) -> Made:
    """Rows of equal lists, each with a label.

    Args:
        asked: Where they come from.
        column: The lists' column.
        values: Numbers, [n, k].
        labels: One a row, [n].
        about: What the schema says of them.
    """
    rows, size = values.shape
    of = pa.list_(pa.field("element", pa.from_numpy_dtype(values.dtype)), size)
    inputs = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(rows * size)), type=of)
    schema = with_label(asked, pa.field(column, of, nullable=False), **about)
    return Made(schema, [pa.Table.from_arrays([inputs, pa.array(labels.astype(np.int64))], schema=schema)])


def with_label(asked: Asked, *fields: pa.Field, **about: Any) -> pa.Schema:
    """A schema with classes beside what is given; `about` is its metadata, in JSON but for texts."""
    about = {"name": asked.name, "split": asked.split, **about}
    known = {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}
    return pa.schema([*fields, pa.field("label", pa.int64(), nullable=False)], known)


def check_classes(labels: np.ndarray, classes: int, where: str) -> None:
    """Refuse labels that are no classes.

    Raises:
        ConfigError: If there is one.
    """
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise ConfigError(
            f"{where} says class {labels[wrong[0]]} of image {wrong[0]}, but classes are 0 to {classes - 1}: download "
            "it again."
        )
