"""Training rows in a worker, from which mini-batches are taken."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from pisa_ray.data.item_check import ItemCheck
from pisa_ray.errors import ConfigError


class Rows(ABC):
    """Some rows of a data set, numbered from 0. `take` makes a view, `batch` a copy."""

    def __init__(self, index: np.ndarray):
        self._index = index  # the positions of these rows in the underlying data, so that a view is an index array

    def __len__(self) -> int:
        return len(self._index)

    @abstractmethod
    def take(self, positions: np.ndarray) -> "Rows":
        """Select rows.

        Args:
            positions: Positions in these rows, integers, in any order.

        Returns:
            Those rows in that order, as a view on the same data.
        """

    @abstractmethod
    def batch(self, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Stack rows into tensors.

        Args:
            positions: Positions in these rows, integers, shape (b,).

        Returns:
            The inputs as stored, shape (b, *input_shape), and the targets, shape (b,), int64 or float32, as new tensors
            on the CPU.
        """


class TensorRows(Rows):
    """Rows held in memory.

    Args:
        inputs: All inputs, shape (n, *input_shape).
        targets: All targets, shape (n, ...).
        index: The positions of these rows among them, int64; by default all in order.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, index: np.ndarray | None = None):
        super().__init__(np.arange(len(inputs), dtype=np.int64) if index is None else index)
        self._inputs, self._targets = inputs, targets

    def take(self, positions: np.ndarray) -> "TensorRows":
        """Select rows; see `Rows.take`."""
        return TensorRows(self._inputs, self._targets, self._index[positions])

    def batch(self, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Stack rows into tensors; see `Rows.batch`."""
        index = torch.from_numpy(self._index[positions])
        return self._inputs[index], self._targets[index]


class DatasetRows(Rows):
    """Rows of a map-style torch dataset, fetched when a batch needs them.

    Args:
        dataset: A dataset with `__len__` and a `__getitem__` that returns (input, target), the same for the same index.
        index: The positions of these rows among its items, int64.
        check: A check of the fetched items, or None.
    """

    def __init__(self, dataset: Any, index: np.ndarray, check: ItemCheck | None = None):
        super().__init__(index)
        self._dataset, self._check = dataset, check

    def take(self, positions: np.ndarray) -> "DatasetRows":
        """Select rows; see `Rows.take`."""
        return DatasetRows(self._dataset, self._index[positions], self._check)

    def batch(self, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Stack rows into tensors; see `Rows.batch`.

        Raises:
            ConfigError: If the items are not pairs of objects that torch can stack, or hold NaN or infinities.
        """
        index = self._index[positions]
        inputs, targets = collate([self._dataset[int(i)] for i in index])
        if self._check is not None:
            self._check(index, inputs, targets)
        return inputs, targets


def collate(items: list[Any]) -> tuple[Tensor, Tensor]:
    """Stack a torch dataset's (input, target) items.

    Args:
        items: At least one item.

    Returns:
        Inputs as stored, shape (b, *input_shape), and targets, shape (b, ...).

    Raises:
        ConfigError: If the items are not pairs of objects that torch can stack.
    """
    try:
        inputs, targets = default_collate(items)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            "The dataset's items cannot be stacked into a batch, but each must be (input, target) with tensors or "
            f"numbers of one shape: convert images with ToTensor() and pad what differs in length ({error})."
        ) from error
    if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor)):
        raise ConfigError(
            f"The dataset's items are not (tensor, tensor) but ({type(inputs).__name__}, {type(targets).__name__}) "
            "after stacking: return an input and a target that are tensors, arrays or numbers."
        )
    return inputs, as_targets(targets)


def as_targets(targets: Tensor) -> Tensor:
    """Convert targets to float32 if they are real numbers, and to int64 if they are integers or booleans."""
    return targets.to(torch.float32 if targets.is_floating_point() else torch.int64)
