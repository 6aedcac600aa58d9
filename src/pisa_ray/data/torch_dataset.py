"""Map-style torch datasets, whose items are fetched when a batch needs them."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from pisa_ray.data.base import Source
from pisa_ray.data.columns import check_finite
from pisa_ray.data.keys import undisturbed_generators
from pisa_ray.data.purity import checked_first_item
from pisa_ray.data.rows import DatasetRows, Rows, TensorRows, as_targets, collate
from pisa_ray.data.where import Where
from pisa_ray.errors import ConfigError

PIECE_ROWS = 1000  # items fetched at once in a pass over the data


class TorchSource(Source):
    """A dataset with `__len__` and a `__getitem__` that returns (input, target).

    An item must be a pure function of its index; random augmentation belongs in `data.transform`, which is keyed.

    Args:
        dataset: The dataset, which travels with the handle. A `TensorDataset` of two tensors is read without a detour.

    Raises:
        ConfigError: If it is empty, its first item is not a pair of tensors, arrays or numbers, or an item is not the
            same when it is fetched again.
    """

    def __init__(self, dataset: Any):
        self._dataset, self.rows = dataset, len(dataset)
        if not self.rows:
            raise ConfigError(
                f"The {type(dataset).__name__} has no items, but at least one is needed: give data that are not empty."
            )
        inputs, targets = checked_first_item(dataset)
        self.input_shape, self.input_dtype = tuple(inputs.shape[1:]), inputs.dtype
        self.target_shape, self.target_dtype = tuple(targets.shape[1:]), targets.dtype
        self.piece_rows = tuple(min(PIECE_ROWS, self.rows - start) for start in range(0, self.rows, PIECE_ROWS))

    def read(self, rows: np.ndarray) -> Rows:
        """Selects rows; see `Source.read`. Only a `TensorDataset`'s are copied now."""
        rows = np.asarray(rows, dtype=np.int64)
        if isinstance(self._dataset, TensorDataset) and len(self._dataset.tensors) == 2:
            inputs, targets = self._dataset.tensors
            index = torch.tensor(rows)
            return TensorRows(inputs[index], as_targets(targets[index]))
        return DatasetRows(self._dataset, rows)

    def column(self, name: str) -> np.ndarray:
        """Refuses: a torch dataset has no named columns."""
        raise ConfigError(
            f"partition.column is {name!r}, but a {type(self._dataset).__name__} has no columns: use another "
            "partition, e.g. Indices, or give the data as a table."
        )

    def labels(self) -> np.ndarray:
        """Takes the labels from the dataset's attributes; see `Source.labels`."""
        found = _find_labels(self._dataset)
        if found is None or len(found) != self.rows:
            raise ConfigError(
                f"The {type(self._dataset).__name__} does not say its {self.rows} labels: add an attribute `targets` "
                "with one label an item, or use IID or Indices as the partition."
            )
        return as_targets(torch.as_tensor(found)).numpy()

    def targets(self) -> Iterator[tuple[int, np.ndarray]]:
        """Takes the targets from the dataset's attributes, if it has any; see `Source.targets`."""
        found = _find_labels(self._dataset)
        if found is not None and len(found) == self.rows:
            yield 0, as_targets(torch.as_tensor(found)).numpy()

    def check(self, name: str, *, inputs: bool) -> None:
        """Looks at a `TensorDataset`; other items are looked at when they are fetched. See `Source.check`."""
        if isinstance(self._dataset, TensorDataset) and len(self._dataset.tensors) == 2:
            for what, tensor in zip(("input", "target"), self._dataset.tensors, strict=True):
                if (inputs or what == "target") and tensor.is_floating_point():
                    for start in range(0, self.rows, PIECE_ROWS):
                        values = tensor[start : start + PIECE_ROWS].detach().float().cpu().numpy()
                        check_finite(values, what, Where(name, start))

    def fingerprint(self) -> str:
        """Hashes the class's name, the number of items, and the first and the last item."""
        digest = hashlib.sha256(f"{type(self._dataset).__qualname__} {self.rows}".encode())
        with undisturbed_generators():
            ends = [collate([self._dataset[i]]) for i in (0, self.rows - 1)]
        for item in ends:
            for tensor in item:
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(_bytes(tensor))
        return digest.hexdigest()


def _find_labels(dataset: Any) -> Any:
    if isinstance(dataset, Subset):
        whole = _find_labels(dataset.dataset)
        return None if whole is None else torch.as_tensor(whole)[torch.as_tensor(dataset.indices)]
    for name in ("targets", "labels"):
        if hasattr(dataset, name):
            return getattr(dataset, name)
    return dataset.tensors[-1] if isinstance(dataset, TensorDataset) else None


def _bytes(tensor: Tensor) -> bytes:
    # By way of uint8, because NumPy has no bfloat16.
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
