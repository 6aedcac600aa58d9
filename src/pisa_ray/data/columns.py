"""Arrow columns as arrays: images, lists of numbers, scalars, labels."""

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pisa_ray.data.images import check_images, decode, is_image
from pisa_ray.data.where import Where
from pisa_ray.errors import ConfigError


@dataclass(frozen=True)
class Columns:
    """The columns that a user names, or the keys where items are dictionaries.

    Attributes:
        input: The input column, or several columns of single numbers.
        label: The label column.
        integers: Whether several input columns of integers stay integers.
    """

    input: str | Sequence[str] | None
    label: str | None
    integers: bool = False

    def named(self, known: Collection[Any], place: str, given: str, lacks: str) -> tuple[tuple[str, ...], str]:
        """Return the names of the inputs and of the label.

        Args:
            known: The names that there are.
            place: What to call the data in error messages.
            given: Why names are needed, as the end of a sentence.
            lacks: How the sentence on a name that there is not ends.

        Raises:
            ConfigError: If a name is missing, or there is no such column.
        """
        inputs = () if self.input is None else (self.input,) if isinstance(self.input, str) else tuple(self.input)
        remedy = f"name one of {', '.join(map(repr, known))}."
        if not inputs or self.label is None:
            raise ConfigError(f"data.{'label' if inputs else 'input'} is missing, but {place} {given}: {remedy}")
        for what, name in [*(("input", name) for name in inputs), ("label", self.label)]:
            if name not in known:
                raise ConfigError(f"data.{what} is {name!r}, but {place} {lacks}: {remedy}")
        return inputs, self.label


@dataclass(frozen=True)
class InputColumns:
    """The input columns of a table, which become one array.

    Attributes:
        columns: The columns' names; more than one only for scalars.
        kind: The kind of the cells: encoded images, lists of numbers, or one number each.
        shape: The shape of a row: (channels, height, width), the list's shape, or (number of columns,).
        dtype: The type of the array as stored; for scalars float32, or int64 if that is asked for and they are
            integers.
    """

    columns: tuple[str, ...]
    kind: Literal["image", "list", "scalars"]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, table: pa.Table, rows: np.ndarray, where: Where) -> np.ndarray:
        """Decode some rows.

        Args:
            table: The table with the columns.
            rows: Row numbers in the table, integers, shape (n,).
            where: The place of the table in the data, for error messages.

        Returns:
            Shape (n, *shape), of type dtype.

        Raises:
            ConfigError: If a cell is null, cannot be decoded, or differs in size or mode from the first row.
        """
        if self.kind == "scalars":
            features: np.ndarray = np.empty((len(rows), len(self.columns)), self.dtype)
            for i, name in enumerate(self.columns):
                features[:, i] = numbers(table[name], name, where)[rows]
            return features
        name = self.columns[0]
        if self.kind == "list":
            lists: np.ndarray = equal_lists(table[name], name, math.prod(self.shape), where)[rows]
            return lists.reshape(len(rows), *self.shape)
        images = np.empty((len(rows), *self.shape), np.uint8)
        for i, row in enumerate(rows):
            images[i] = decode(table[name][int(row)], where.cell(row, name), self.shape)
        return images


def plan_inputs(
    schema: pa.Schema, columns: Sequence[str], head: Callable[[], pa.Table], where: Where, *, integers: bool
) -> InputColumns:
    """Find out the shape and type of the inputs from the schema, and from the first row if the schema is not enough.

    Args:
        schema: The table's schema, whose metadata may have `shape` in JSON, channels first.
        columns: The input columns' names, all in the schema.
        head: Reads the input columns of the first row; called only for images and lists without a fixed length.
        where: The place of the table in the data, for error messages.
        integers: Whether several columns of integers stay integers.

    Returns:
        The columns with their shape and type.

    Raises:
        ConfigError: If a column's type cannot be an input.
    """
    types = [schema.field(name).type for name in columns]
    if all(is_number(kind) for kind in types):
        whole = integers and all(pa.types.is_integer(kind) for kind in types)
        return InputColumns(tuple(columns), "scalars", (len(columns),), np.dtype(np.int64 if whole else np.float32))
    if len(columns) > 1:
        name, kind = next(pair for pair in zip(columns, types, strict=True) if not is_number(pair[1]))
        raise ConfigError(
            f"data.input is {list(columns)}, but only columns of single numbers can be put together, and {name!r} is "
            f"one of {kind}: leave it out, store its values as numbers, or name one column of images or lists alone."
        )
    name, kind = columns[0], types[0]
    if is_image(kind):
        image = decode(head()[name][0], where.cell(0, name))
        return InputColumns((name,), "image", image.shape, np.dtype(np.uint8))
    stored = storage(kind)
    if is_list(stored):
        size = list_size(stored, lambda: head()[name], where.cell(0, name))
        shape = tuple(getattr(kind, "shape", ())) or _shape_in_metadata(schema)
        shape = shape if math.prod(shape) == size and shape else (size,)
        return InputColumns((name,), "list", shape, np.dtype(stored.value_type.to_pandas_dtype()))
    if is_text(kind):
        raise ConfigError(
            f"data.input is {name!r}, but text columns are not supported yet: store language as token numbers in a "
            "column of fixed-size lists, images as their own bytes, and name that column."
        )
    raise ConfigError(
        f"data.input is {name!r}, a column of {kind}, but images (bytes), lists of numbers or single numbers are "
        "expected: convert the column or name another one."
    )


def list_size(kind: pa.DataType, head: Callable[[], pa.ChunkedArray], cell: str) -> int:
    """Return the length of a column's lists, which is that of the first one.

    Args:
        kind: The column's type, for which `is_list` holds.
        head: Reads the column's first row.
        cell: What to call the first row's cell in error messages.

    Raises:
        ConfigError: If the first list is null or empty.
    """
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    first = _plain(head())[0]
    if not first.is_valid or not len(first):
        found = "an empty list" if first.is_valid else "null"
        raise ConfigError(f"{cell} is {found}, but it must say how long every list is: fill in or drop that row.")
    return len(first)


def numbers(column: pa.ChunkedArray, name: str, where: Where) -> np.ndarray:
    """Read a column of single numbers or booleans, shape (n,), as stored.

    Raises:
        ConfigError: If a cell is null.
    """
    check_nulls(column, name, where)
    values: np.ndarray = column.to_numpy()
    return values


def partition_values(column: pa.ChunkedArray, name: str, where: Where) -> np.ndarray:
    """Read a column to partition by: numbers as stored, text as an object array, shape (n,).

    Raises:
        ConfigError: If a cell is null or not finite, or the cells are neither numbers nor text.
    """
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if is_number(column.type):
        return check_finite(numbers(column, name, where), name, where)
    if is_text(column.type):
        return numbers(column, name, where)
    raise ConfigError(
        f"Column {name!r} is of type {column.type}, but only numbers or text can cut data into shards: "
        "name another column."
    )


def check_nulls(column: pa.ChunkedArray, name: str, where: Where) -> None:
    """Refuse nulls, and images of which there is only a path.

    Raises:
        ConfigError: If there is such a cell.
    """
    if is_image(column.type):
        check_images(column, name, where)
    elif column.null_count:
        row = int(pc.index(column.is_null(), pa.scalar(value=True)).as_py())
        raise ConfigError(f"{where.cell(row, name)} is null, but every row needs a value: fill in or drop that row.")


def check_finite(values: np.ndarray, name: str, where: Where) -> np.ndarray:
    """Return numbers unchanged if float32, or for integers int64, can hold them all.

    Args:
        values: Numbers or booleans, shape (n, ...).
        name: The name of their column.
        where: The place of the rows in the data.

    Raises:
        ConfigError: If one is NaN, infinite or too large.
    """
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            good = np.isfinite(values.astype(np.float32, copy=False))
    elif values.dtype == np.uint64:
        good = values <= np.iinfo(np.int64).max
    else:
        return values
    if not good.all():
        row, *place = np.argwhere(~good)[0]
        value = values[row, *place]
        most = f"every number must be finite{' and fit into float32' if np.isfinite(value) else ''}"
        most = most if values.dtype.kind == "f" else "an integer must fit into int64"
        raise ConfigError(
            f"{where.cell(int(row), name)} {'holds' if place else 'is'} {value}, but {most}: fill in or drop that row."
        )
    return values


def storage(kind: pa.DataType) -> pa.DataType:
    """Return the type in which the cells of a column are stored."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def is_number(kind: pa.DataType) -> bool:
    """Return whether a cell is one number or boolean."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def is_text(kind: pa.DataType) -> bool:
    """Return whether a cell is a string."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Return whether a cell is a list of numbers or booleans."""
    lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(lists and is_number(kind.value_type))


def _plain(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def equal_lists(column: pa.ChunkedArray, name: str, size: int, where: Where) -> np.ndarray:
    """Read a column of lists, shape (n, size), as stored.

    Args:
        column: The column.
        name: Its name.
        size: The length that every list must have.
        where: The place of the rows in the data, for error messages.

    Raises:
        ConfigError: If a cell is null, has a null, or is a list of another length.
    """
    check_nulls(column, name, where)
    array = _plain(column)
    if not pa.types.is_fixed_size_list(array.type):
        lengths = pc.list_value_length(array).to_numpy()
        wrong = np.flatnonzero(lengths != size)
        if len(wrong):
            raise ConfigError(
                f"{where.cell(wrong[0], name)} has {lengths[wrong[0]]} numbers, but the first row has {size}: bring "
                "all rows to one length."
            )
    flat = array.flatten()
    if flat.null_count:
        row = int(pc.index(flat.is_null(), pa.scalar(value=True)).as_py()) // size
        raise ConfigError(f"{where.cell(row, name)} has a null in its list: fill in or drop that row.")
    values: np.ndarray = flat.to_numpy(zero_copy_only=False)
    return values.reshape(-1, size)


def _shape_in_metadata(schema: pa.Schema) -> tuple[int, ...]:
    try:
        return tuple(int(side) for side in json.loads((schema.metadata or {})[b"shape"]))
    except (KeyError, TypeError, ValueError):
        return ()
