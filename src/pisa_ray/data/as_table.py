"""Arrow tables made of DataFrames, dictionaries of columns, lists of rows, and Hugging Face data sets."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pisa_ray.checks import kind_of, shown
from pisa_ray.errors import ConfigError


def as_table(spec: Any, name: str) -> pa.Table | None:
    """Make an Arrow table of an object that holds one.

    Args:
        spec: The user's data.
        name: What to call the data in error messages.

    Returns:
        The table, or None if the data are no table.

    Raises:
        ConfigError: If its rows are not of one kind.
    """
    try:
        return _as_table(spec, name)
    except ConfigError:
        raise
    except Exception as error:  # the libraries of tables and arrays may raise anything
        raise ConfigError(
            f"{name} is {shown(spec)} that cannot be read as a table ({type(error).__name__}: {error}): give each "
            "column values of one type and one shape."
        ) from error


def _as_table(spec: Any, name: str) -> pa.Table | None:
    # An object of a library exists only if the library has been imported.
    pandas, hugging_face = sys.modules.get("pandas"), sys.modules.get("datasets")
    table = None
    if isinstance(spec, pa.Table):
        table = _with_arrays(spec)
    elif pandas is not None and isinstance(spec, pandas.DataFrame):
        table = pa.Table.from_pandas(spec, preserve_index=False)
    elif hugging_face is not None and isinstance(spec, getattr(hugging_face, "Dataset", ())):
        table = _selected(spec)
    elif isinstance(spec, Mapping):
        _check_splits(spec, name)
        table = _from_columns(spec, name)
    elif isinstance(spec, list | tuple) and spec and isinstance(spec[0], Mapping):
        table = _from_columns(_by_column(spec, name), name)
    elif hasattr(spec, "__arrow_c_stream__") and not hasattr(spec, "dtype"):  # polars and others with Arrow's interface
        table = pa.table(spec)
    return table


def _selected(dataset: Any) -> pa.Table | None:
    """Return the rows of a Hugging Face data set in its own order, after its selections and shuffles."""
    if dataset.format["type"] == "custom":  # a function of the user's makes its items
        return None
    table = dataset.with_format("arrow")[:]
    if any(type(feature).__name__ == "Image" for feature in dataset.features.values()):
        table = sys.modules["datasets.table"].embed_table_storage(table)  # some cells may hold paths only
    return _with_arrays(table)


def _with_arrays(table: pa.Table) -> pa.Table:
    """Return the table with Hugging Face's columns of arrays, whose shapes Arrow does not know, as tensors."""
    for i, field in enumerate(table.schema):
        if type(field.type).__name__.startswith("Array"):  # such as Array2D
            array = table[i].combine_chunks().to_numpy(zero_copy_only=False)
            table = table.set_column(i, field.name, _column(array))
    return table


def _check_splits(spec: Mapping[Any, Any], name: str) -> None:
    if "Dataset" in type(spec).__name__:
        splits = ", ".join(map(repr, spec))
        raise ConfigError(
            f"{name} is {kind_of(spec)} of the splits {splits}: give one of them, such as "
            f"dataset[{next(iter(spec), 'train')!r}]."
        )


def _by_column(rows: Sequence[Any], name: str) -> dict[str, list[Any]]:
    names = list(rows[0])
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping) or {*row} != {*names}:
            raise ConfigError(
                f"{name} is a list of rows with {', '.join(map(shown, names))}, but row {i} has others: give "
                "all rows the same columns."
            )
    return {column: [row[column] for row in rows] for column in names}


def _from_columns(columns: Mapping[Any, Any], name: str) -> pa.Table:
    made = {}
    for column, values in columns.items():
        if not isinstance(column, str):
            raise ConfigError(f"{name} is a dictionary with the key {shown(column)}, but a column's name is a text.")
        try:
            made[column] = _column(values)
        except Exception as error:  # NumPy, torch and Arrow may raise anything
            raise ConfigError(
                f"{name}[{column!r}] is {shown(values)} that cannot be a column ({error}): give an array with one "
                "value, or values of one shape, for each row."
            ) from error
    sizes = {column: len(values) for column, values in made.items()}
    if len(set(sizes.values())) > 1:
        raise ConfigError(f"{name} has columns of different lengths ({sizes}): give each row a value in all of them.")
    return pa.table(made)


def _column(values: Any) -> pa.Array | pa.ChunkedArray:
    """Return values as an Arrow array; several dimensions become lists of fixed length or tensors of fixed shape."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    if isinstance(values, list | tuple) and values and isinstance(values[0], np.ndarray | torch.Tensor | list | tuple):
        parts = [np.asarray(value) for value in values]
        if len({part.shape for part in parts}) > 1:
            return pa.array(parts)
        values = np.stack(parts)
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__"):
        raise TypeError(f"a {type(values).__name__} has no value for each row")
    if not isinstance(values, np.ndarray) or values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    lists = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))
    if values.ndim == 2:
        return lists
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(flat.type, values.shape[1:]), lists)
