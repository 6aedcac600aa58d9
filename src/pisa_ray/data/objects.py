"""Objects of users that hold data, brought to one of the forms that sources take or refused with a remedy."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pisa_ray.checks import plain, shown
from pisa_ray.data.as_table import as_table
from pisa_ray.errors import ConfigError

_KINDS = (
    "a path or a list of paths, a DataFrame, a pyarrow.Table, a dictionary of arrays, a pair of arrays (inputs, "
    "targets), a torch or Hugging Face data set with __len__ and __getitem__, a ray.data.Dataset, or 'digits'"
)


def as_data(spec: Any, name: str) -> Any:
    """Bring data to a path, a list of paths, an Arrow table, or an object with items by number.

    Args:
        spec: The user's data: a path, perhaps with * for several files; a list of paths; a DataFrame of pandas or of a
            library with Arrow's interface; a dictionary of arrays; a list of rows that are dictionaries; a pair of
            arrays or tensors (inputs, targets); a Hugging Face data set; or any other object with items by number,
            which is returned as it is.
        name: What to call the data in error messages, such as "data.train".

    Raises:
        ConfigError: If the data cannot be cut into shards, or cannot be read as what they seem to be.
    """
    spec = plain(spec)
    if isinstance(spec, str | os.PathLike):
        return _files(spec, name)
    if not isinstance(spec, type) and (table := as_table(spec, name)) is not None:
        return table
    if isinstance(spec, list | tuple):
        return _sequence(spec, name)
    if (why := f"but it must be {_KINDS}" if isinstance(spec, type) else _unfit(spec)) is not None:
        raise ConfigError(f"{name} is {shown(spec)}, {why}.")
    return spec


def _unfit(spec: Any) -> str | None:
    """Return why data cannot be cut into shards, and what to do, or None if nothing speaks against it."""
    why = None
    if isinstance(spec, DataLoader):
        why = "but every shard makes its own batches: give the loader's dataset, and batch_size to the trainer"
    elif _is_array(spec):
        why = "which has no targets: give a pair (inputs, targets)"
    elif isinstance(spec, IterableDataset) or (isinstance(spec, Iterable) and not hasattr(spec, "__getitem__")):
        why = (
            "whose rows come one after another, but shards need rows by number: write them to Parquet, or give a data "
            "set with __len__ and __getitem__"
        )
    elif isinstance(spec, bytes | bytearray | memoryview | range) or not hasattr(spec, "__getitem__"):
        why = f"but it must be {_KINDS}"
    else:
        try:
            len(spec)
        except Exception as error:  # a user's class may raise anything
            why = f"whose rows cannot be counted ({type(error).__name__}: {error}), but it must be {_KINDS}"
    return why


def _files(spec: str | os.PathLike[Any], name: str) -> str | Path | list[str]:
    path = os.fspath(spec)
    if not isinstance(path, str) or not path.strip():
        raise ConfigError(f"{name} is {shown(path)}, but it must be {_KINDS}.")
    if "://" in path or not glob.has_magic(path) or os.path.lexists(path):
        return path if isinstance(spec, str) else Path(path)
    if found := sorted(glob.glob(path, recursive=True)):
        return found
    raise ConfigError(f"{name} is {path!r}, but no file has such a name: give a path, or a pattern that fits one.")


def _sequence(spec: Sequence[Any], name: str) -> Any:
    """Return data that are a list of paths, a list of (input, target) items, or a pair of arrays."""
    if not spec:
        raise ConfigError(f"{name} is an empty {type(spec).__name__}, but at least one row is needed.")
    if all(isinstance(item, str | os.PathLike) for item in spec):
        found = [_files(item, name) for item in spec]
        return [str(path) for some in found for path in (some if isinstance(some, list) else [some])]
    if isinstance(spec, tuple) and len(spec) == 2 and all(_is_array(part) or isinstance(part, list) for part in spec):
        return _pair(*spec, name)
    if isinstance(spec[0], tuple | list):
        return spec
    kinds = ", ".join(dict.fromkeys(type(item).__name__ for item in spec[:100]))
    raise ConfigError(
        f"{name} is a {type(spec).__name__} of {kinds}, but its items must be paths, or rows (input, target): put data "
        "sets together by torch.utils.data.ConcatDataset, tables by pyarrow.concat_tables, and arrays as a pair "
        "(inputs, targets)."
    )


def _pair(inputs: Any, targets: Any, name: str) -> TensorDataset:
    try:
        x, y = (_tensor(part) for part in (inputs, targets))
    except Exception as error:  # such as for texts or lists of unequal lengths
        raise ConfigError(
            f"{name} is a pair whose parts are not both arrays of numbers ({error}): give inputs and targets as "
            "arrays, texts as their numbers."
        ) from error
    if x.dim() == 0 or y.dim() == 0 or len(x) != len(y):
        sizes = " and ".join(str(len(part)) if part.dim() else "no" for part in (x, y))
        raise ConfigError(f"{name} is a pair (inputs, targets) with {sizes} rows, but each input needs its target.")
    return TensorDataset(x, y)


def _tensor(values: Any) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu()
    return torch.from_numpy(np.array(values, order="C"))  # a copy, as torch wants writable memory


def _is_array(value: Any) -> bool:
    """Return whether a value is an array, a tensor, or a column of a DataFrame or of an Arrow table."""
    return isinstance(value, np.ndarray | torch.Tensor | pa.Array | pa.ChunkedArray) or hasattr(value, "to_numpy")
