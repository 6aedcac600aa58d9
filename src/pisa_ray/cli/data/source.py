"""The input and the output that all formats have in common."""

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
    """The request of the user.

    Attributes:
        name: One of KINDS.
        source: The folder or file with the data.
        split: "train" or "test".
        label: The label column of a CSV file.
        classes: The names of the classes in the order of their numbers; None: those in the data, sorted.
    """

    name: str
    source: Path
    split: str = "train"
    label: str = ""
    classes: list[str] | None = None

    def file(self, *names: str) -> Path:
        """Return the file in the folder with one of some names, in any case, packed by gzip or not.

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
    """Return the paths in a folder, sorted, without hidden ones.

    Raises:
        ConfigError: If it is not a folder that can be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"--from is {str(folder)!r}, but it must be a folder ({error.strerror}).") from error


def contents(path: Path) -> bytes:
    """Return the bytes of a file, unpacked if gzip has packed them.

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
    """Return the text of a file in UTF-8.

    Raises:
        ConfigError: If it cannot be read, or is not text in UTF-8.
    """
    data = contents(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: this is not text in UTF-8; save the file in UTF-8.") from error


def lists(asked: Asked, column: str, values: np.ndarray, labels: np.ndarray, **about: Any) -> Made:
    """Make rows of equal lists, each with a label.

    Args:
        asked: The request.
        column: The name of the column of lists.
        values: The numbers, [n, k].
        labels: The labels, [n].
        about: Further metadata of the schema.
    """
    rows, size = values.shape
    of = pa.list_(pa.field("element", pa.from_numpy_dtype(values.dtype)), size)
    inputs = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(rows * size)), type=of)
    schema = with_label(asked, pa.field(column, of, nullable=False), **about)
    return Made(schema, [pa.Table.from_arrays([inputs, pa.array(labels.astype(np.int64))], schema=schema)])


def with_label(asked: Asked, *fields: pa.Field, **about: Any) -> pa.Schema:
    """Return a schema of fields and a label; `about` becomes metadata, in JSON unless it is a text."""
    about = {"name": asked.name, "split": asked.split, **about}
    known = {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}
    return pa.schema([*fields, pa.field("label", pa.int64(), nullable=False)], known)


def check_classes(labels: np.ndarray, classes: int, where: str) -> None:
    """Refuse labels that are not classes.

    Raises:
        ConfigError: If there is one.
    """
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise ConfigError(
            f"{where} says class {labels[wrong[0]]} of image {wrong[0]}, but classes are 0 to {classes - 1}: download "
            "it again."
        )
