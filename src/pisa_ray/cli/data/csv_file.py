"""Reads a CSV file: columns of numbers become `features`, one column becomes `label`, and the others are kept."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from pisa_ray.cli.data.source import Asked, Made, text, with_label
from pisa_ray.data.columns import is_number
from pisa_ray.errors import ConfigError


def made(asked: Asked) -> Made:
    """Read the rows; a label that is a text becomes a class, and a number stays a number."""
    table = _read(asked)
    if asked.label not in table.column_names:
        raise ConfigError(
            f"--label is {asked.label!r}, but {asked.source} has the columns {_listed(table.column_names)}: name one "
            "of them; commas without spaces must be between them."
        )
    names = [name for name in table.column_names if name != asked.label]
    numbers = [name for name in names if is_number(table[name].type)]
    others = [name for name in names if name not in numbers]
    if not numbers:
        raise ConfigError(
            f"{asked.source} has no column of numbers but the label, of which features could be made: "
            "give one, with a point in its numbers, as 1.5."
        )
    if taken := {"features", "label"}.intersection(others):
        raise ConfigError(f"{asked.source} has a column of text {min(taken)!r}, which the result needs: rename it.")
    labels, classes = _labels(table[asked.label], asked)
    features = np.stack([_floats(table[name], name, asked) for name in numbers], axis=1)
    about = {"shape": [len(numbers)], "feature_names": numbers} | ({"class_names": classes} if classes else {})
    of = pa.list_(pa.field("element", pa.float32()), len(numbers))
    fields = [pa.field("features", of, nullable=False), *(table.schema.field(name) for name in others)]
    schema = with_label(asked, *fields, **about)
    schema = schema.set(len(fields), pa.field("label", labels.type, nullable=False))
    inputs = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), type=of)
    columns = [inputs, *(table[name] for name in others), labels]
    return Made(schema, [pa.Table.from_arrays(columns, schema=schema)])


def _read(asked: Asked) -> pa.Table:
    try:
        table = csv.read_csv(
            io.BytesIO(text(asked.source).encode()), parse_options=csv.ParseOptions(newlines_in_values=True)
        )
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{asked.source} cannot be read as a CSV file ({error}): correct it.") from error
    if twice := [name for name in table.column_names if table.column_names.count(name) > 1]:
        raise ConfigError(f"{asked.source} has two columns {twice[0]!r}: rename one of them.")
    if not table.num_rows:
        raise ConfigError(f"{asked.source} has no rows below its first line: add some.")
    return table


def _floats(column: pa.ChunkedArray, name: str, asked: Asked) -> np.ndarray:
    values: np.ndarray = column.cast(pa.float32(), safe=False).to_numpy()
    _refuse(~np.isfinite(values), column, name, asked, "a finite number")
    return values


def _labels(column: pa.ChunkedArray, asked: Asked) -> tuple[pa.Array, list[str] | None]:
    """Return the labels, and the names of the classes if the labels are texts."""
    labels = column.combine_chunks()
    if is_number(labels.type) and asked.classes is None:
        labels = labels if pa.types.is_floating(labels.type) else labels.cast(pa.int64())
        values = labels.to_numpy(zero_copy_only=False)
        bad = ~np.isfinite(values) if pa.types.is_floating(labels.type) else values < 0
        _refuse(labels.is_null().to_numpy(zero_copy_only=False), column, asked.label, asked, _LABEL)
        _refuse(bad, column, asked.label, asked, _NUMBER)
        return labels, None
    names = labels.cast(pa.string())
    _refuse(pc.fill_null(pc.equal(names, ""), True).to_numpy(zero_copy_only=False), column, asked.label, asked, _LABEL)
    classes = asked.classes or sorted(names.unique().to_pylist())
    numbers = pc.index_in(names, pa.array(classes))
    unknown = numbers.is_null().to_numpy(zero_copy_only=False)
    _refuse(unknown, column, asked.label, asked, f"a class of the file of --like: {_listed(classes)}")
    return numbers.cast(pa.int64()), classes


_NUMBER = "a finite number, and a class numbered from 0 where all labels are whole numbers"
_LABEL = "the name of a class, a whole number from 0, or a finite number"


def _refuse(wrong: np.ndarray, column: pa.ChunkedArray, name: str, asked: Asked, expected: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        value = column[row].as_py()
        given = "missing (an empty cell, NA or null)" if value is None else repr(value)
        raise ConfigError(
            f"{asked.source}, row {row + 1} below the first line: column {name!r} is "
            f"{given}, but it must be {expected}: correct or remove that row."
        )


def _listed(names: list[str], most: int = 20) -> str:
    return json.dumps(names[:most], ensure_ascii=False)[1:-1] + (", ..." if len(names) > most else "")
