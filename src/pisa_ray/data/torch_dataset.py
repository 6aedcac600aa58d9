"""Map-style torch datasets, whose items are fetched for each batch."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from pisa_ray.data.base import Source
from pisa_ray.data.columns import Columns
from pisa_ray.data.item_check import ItemCheck, check_items
from pisa_ray.data.keys import undisturbed_generators
from pisa_ray.data.purity import checked_first_item
from pisa_ray.data.rows import DatasetRows, Rows, TensorRows, as_targets, collate
from pisa_ray.errors import ConfigError

#: The number of items in the fingerprint of a dataset.
KNOWN_ITEMS = 16

#: The number of items that are fetched at once in a pass over the data.
PIECE_ROWS = 1000


class TorchSource(Source):
    """A dataset with `__len__` and a `__getitem__` that returns (input, target).

    An item must be a pure function of its index; random augmentation belongs in `data.transform`, which is keyed.

    Args:
        dataset: The dataset, which is sent with the handle. A `TensorDataset` of two tensors is read directly.
        name: What to call an empty dataset in the error message; None: the name of its class.

    Raises:
        ConfigError: If the dataset is empty, its first item is not a pair of tensors, arrays or numbers, or an item
            differs when it is fetched again.
    """

    def __init__(self, dataset: Any, name: str | None = None):
        self._dataset, self.rows = dataset, len(dataset)
        self._check: ItemCheck | None = None
        if not self.rows:
            empty = name or f"The {type(dataset).__name__}"
            raise ConfigError(f"{empty} has no items, but at least one is needed: give data that are not empty.")
        inputs, targets = checked_first_item(dataset)
        self.input_shape, self.input_dtype = tuple(inputs.shape[1:]), inputs.dtype
        self.target_shape, self.target_dtype, self.target_name = tuple(targets.shape[1:]), targets.dtype, "target"
        self.piece_rows = tuple(min(PIECE_ROWS, self.rows - start) for start in range(0, self.rows, PIECE_ROWS))

    def read(self, rows: np.ndarray) -> Rows:
        """Select rows; see `Source.read`. Only the rows of a `TensorDataset` are copied at once."""
        rows = np.asarray(rows, dtype=np.int64)
        if isinstance(self._dataset, TensorDataset) and len(self._dataset.tensors) == 2:
            inputs, targets = self._dataset.tensors
            index = torch.tensor(rows)
            return TensorRows(inputs[index], as_targets(targets[index]))
        return DatasetRows(self._dataset, rows, self._check)

    def column(self, name: str) -> np.ndarray:
        """Raise a ConfigError, as a torch dataset has no named columns."""
        raise ConfigError(
            f"partition.column is {name!r}, but a {type(self._dataset).__name__} has no columns: use another "
            "partition, e.g. Indices, or give the data as a table."
        )

    def labels(self) -> np.ndarray:
        """Take the labels from the dataset's attributes; see `Source.labels`."""
        found = _find_labels(self._dataset)
        if found is None or len(found) != self.rows:
            raise ConfigError(
                f"The {type(self._dataset).__name__} does not say its {self.rows} labels: add an attribute `targets` "
                "with one label an item, or use IID or Indices as the partition."
            )
        return self._as_labels(found)

    def _as_labels(self, found: Any) -> np.ndarray:
        try:
            return as_targets(torch.as_tensor(found)).numpy()
        except Exception as error:  # such as for texts or lists of unequal lengths
            raise ConfigError(
                f"The labels that the {type(self._dataset).__name__} gives in its attribute `targets` are no numbers "
                f"({error}): give one integer from 0 an item, texts as their numbers."
            ) from error

    def targets(self) -> Iterator[tuple[int, np.ndarray]]:
        """Take the targets from the dataset's attributes, if it has any; see `Source.targets`."""
        found = _find_labels(self._dataset)
        if found is not None and len(found) == self.rows:
            yield 0, self._as_labels(found)

    def check(self, name: str, *, inputs: bool) -> None:
        """Check a `TensorDataset` or a list; other items are checked when they are fetched. See `Source.check`."""
        self._check = partial(check_items, name, inputs)
        if isinstance(self._dataset, TensorDataset | list):
            for rows in self.pieces():
                self._check(rows, *self.read(rows).batch(np.arange(len(rows))))

    def fingerprint(self) -> str:
        """Hash the number of items and some evenly spaced ones, or all items of a `TensorDataset`."""
        digest = hashlib.sha256(str(self.rows).encode())
        if isinstance(self._dataset, TensorDataset):
            found = [tuple(self._dataset.tensors)]
        else:
            with undisturbed_generators():
                found = [collate([self._dataset[i]]) for i in evenly_spaced(self.rows, KNOWN_ITEMS)]
        for item in found:
            for tensor in item:
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(_bytes(tensor))
        return digest.hexdigest()


def evenly_spaced(rows: int, number: int) -> list[int]:
    """Return a number of evenly spaced row numbers, with the first and the last among them.

    Example:
        >>> evenly_spaced(10, 4)
        [0, 3, 6, 9]
    """
    return sorted({k * (rows - 1) // max(number - 1, 1) for k in range(number)})


class NamedItems:
    """A dataset of dictionaries, seen as one of (input, target) items.

    Args:
        dataset: The dataset.
        inputs: The key of the input, or the keys of several numbers that make up the input.
        label: The key of the target.
    """

    def __init__(self, dataset: Any, inputs: tuple[str, ...], label: str):
        self._dataset, self._inputs, self._label = dataset, inputs, label

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        item = self._dataset[index]
        parts = [item[name] for name in self._inputs]
        joined = parts[0] if len(parts) == 1 else torch.stack([torch.as_tensor(part) for part in parts])
        return joined, item[self._label]


def with_columns(dataset: Any, columns: Columns) -> Any:
    """Return the dataset, or a `NamedItems` if its items are dictionaries.

    Raises:
        ConfigError: If the keys are not given, or the first item does not have them.
    """
    try:
        with undisturbed_generators():
            first = dataset[0] if len(dataset) else None
    except Exception:  # the error is raised again where items are checked
        return dataset
    if not isinstance(first, Mapping):
        return dataset
    place = f"the items of the {type(dataset).__name__}"
    return NamedItems(dataset, *columns.named(first, place, "are dictionaries", "have no such key"))


def _find_labels(dataset: Any) -> Any:
    if isinstance(dataset, Subset):
        whole = _find_labels(dataset.dataset)
        return None if whole is None else torch.as_tensor(whole)[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [_find_labels(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else torch.cat([torch.as_tensor(part) for part in parts])
    if isinstance(dataset, list):
        targets = [torch.as_tensor(item[1]) for item in dataset]
        return torch.stack(targets) if len({target.shape for target in targets}) == 1 else None
    for name in ("targets", "labels"):
        if hasattr(dataset, name):
            return getattr(dataset, name)
    return dataset.tensors[-1] if isinstance(dataset, TensorDataset) else None


def _bytes(tensor: Tensor) -> bytes:
    # The view as uint8 is needed because NumPy has no bfloat16.
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
