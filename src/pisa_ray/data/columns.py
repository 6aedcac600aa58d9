"""From Arrow columns to arrays: images, lists of numbers, scalars, labels."""

import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pisa_ray.errors import ConfigError


@dataclass(frozen=True)
class Features:
    """How the input columns of a table become one array.

    Attributes:
        columns: The columns' names; more than one only for scalars.
        kind: What the cells are: encoded images, lists of numbers, or one number each.
        shape: One row's shape: (channels, height, width), the list's shape, or (number of columns,).
        dtype: The array's type as stored; float32 for scalars.
    """

    columns: tuple[str, ...]
    kind: Literal["image", "list", "scalars"]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, table: pa.Table, rows: np.ndarray, first_row: int) -> np.ndarray:
        """Decodes some rows.

        Args:
            table: Holds the columns.
            rows: Row numbers in the table, integers, shape (n,).
            first_row: Number of the table's first row in the whole source, for error messages.

        Returns:
            Shape (n, *shape), of type dtype.

        Raises:
            ConfigError: If a cell is null, or differs in size or mode from the first row.
        """
        if self.kind == "scalars":
            features: np.ndarray = np.empty((len(rows), len(self.columns)), np.float32)
            for i, name in enumerate(self.columns):
                features[:, i] = numbers(table[name], name)[rows]
            return features
        name = self.columns[0]
        if self.kind == "list":
            lists: np.ndarray = equal_lists(table[name], name, math.prod(self.shape), first_row)[rows]
            return lists.reshape(len(rows), *self.shape)
        column = check_nulls(_image_bytes(table[name]), name)
        images = np.empty((len(rows), *self.shape), np.uint8)
        for i, row in enumerate(rows):
            where = f"Row {first_row + row} of column {name!r}"
            image = _decode(column[int(row)].as_buffer(), where)
            if image.shape != self.shape:
                raise ConfigError(
                    f"{where} is an image of shape {image.shape}, but the first row has {self.shape}: "
                    "bring all images to one size and colour mode."
                )
            images[i] = image
        return images


def plan_features(schema: pa.Schema, columns: Sequence[str], head: Callable[[], pa.Table]) -> Features:
    """Finds out from the schema, and where that is not enough from the first row, what the input looks like.

    Args:
        schema: The table's schema; its metadata may have `shape`, JSON, channel-first.
        columns: The input columns' names, all in the schema.
        head: Reads the first row's input columns; called only for images and lists without a fixed length.

    Returns:
        The plan.

    Raises:
        ConfigError: If a column's type cannot be an input.
    """
    types = [schema.field(name).type for name in columns]
    if all(is_number(kind) for kind in types):
        return Features(tuple(columns), "scalars", (len(columns),), np.dtype(np.float32))
    if len(columns) > 1:
        raise ConfigError(
            f"data.input is {list(columns)}, but only columns of single numbers can be put together: "
            "name one column of images or lists instead."
        )
    name, kind = columns[0], types[0]
    if _is_image(kind):
        image = _decode(check_nulls(_image_bytes(head()[name]), name)[0].as_buffer(), f"Row 0 of column {name!r}")
        return Features((name,), "image", image.shape, np.dtype(np.uint8))
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if is_list(storage):
        size = storage.list_size if pa.types.is_fixed_size_list(storage) else len(_plain(head()[name])[0])
        shape = tuple(getattr(kind, "shape", ())) or _shape_in_metadata(schema)
        shape = shape if math.prod(shape) == size and shape else (size,)
        return Features((name,), "list", shape, np.dtype(storage.value_type.to_pandas_dtype()))
    if is_text(kind):
        raise ConfigError(
            f"data.input is {name!r}, but text columns are not supported yet: store token numbers in a column of "
            "fixed-size lists and name that one."
        )
    raise ConfigError(
        f"data.input is {name!r}, a column of {kind}, but images (bytes), lists of numbers or single numbers are "
        "expected: convert the column or name another one."
    )


def numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Reads a column of single numbers or booleans, shape (n,), as stored.

    Raises:
        ConfigError: If a cell is null.
    """
    values: np.ndarray = check_nulls(column, name).to_numpy()
    return values


def partition_values(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Reads a column to partition by: numbers as stored, text as an object array, shape (n,).

    Raises:
        ConfigError: If a cell is null, or the cells are neither numbers nor text.
    """
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if is_number(column.type) or is_text(column.type):
        return numbers(column, name)
    raise ConfigError(
        f"Column {name!r} is of type {column.type}, but only numbers or text can cut data into shards: "
        "name another column."
    )


def check_nulls(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Gives the column back if it has no nulls.

    Raises:
        ConfigError: If it has.
    """
    if column.null_count:
        raise ConfigError(f"Column {name!r} has nulls, but every row needs a value: fill in or drop those rows.")
    return column


def is_number(kind: pa.DataType) -> bool:
    """Whether a cell is one number or boolean."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether a cell is a string."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a cell is a list of numbers or booleans."""
    lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(lists and is_number(kind.value_type))


def _is_image(kind: pa.DataType) -> bool:
    # Hugging Face data sets store an image as struct{bytes, path}.
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _image_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _decode(data: pa.Buffer, where: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            mode, pixels = image.mode, np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ConfigError(f"{where} is not a PNG or JPEG image that can be read: repair or drop that row.") from error
    if mode not in ("L", "RGB"):
        raise ConfigError(f"{where} is an image of mode {mode}, but grey (L) or RGB is expected: convert the images.")
    return pixels[np.newaxis] if mode == "L" else pixels.transpose(2, 0, 1)


def _plain(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def equal_lists(column: pa.ChunkedArray, name: str, size: int, first_row: int) -> np.ndarray:
    """Reads a column of lists, shape (n, size), as stored.

    Args:
        column: The column.
        name: Its name.
        size: How long every list must be.
        first_row: Number of its first row in the whole source, for error messages.

    Raises:
        ConfigError: If a cell is null, or a list has another length.
    """
    array = _plain(check_nulls(column, name))
    if not pa.types.is_fixed_size_list(array.type):
        lengths = pc.list_value_length(array).to_numpy()
        wrong = np.flatnonzero(lengths != size)
        if len(wrong):
            raise ConfigError(
                f"Row {first_row + wrong[0]} of column {name!r} has {lengths[wrong[0]]} numbers, but the first row has "
                f"{size}: bring all rows to one length."
            )
    values: np.ndarray = check_nulls(array.flatten(), name).to_numpy(zero_copy_only=False)
    return values.reshape(-1, size)


def _shape_in_metadata(schema: pa.Schema) -> tuple[int, ...]:
    try:
        return tuple(int(side) for side in json.loads((schema.metadata or {})[b"shape"]))
    except (KeyError, TypeError, ValueError):
        return ()
