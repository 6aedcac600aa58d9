"""The interface of all kinds of training data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pisa_ray.later import torch

if TYPE_CHECKING:  # that imports torch
    from pisa_ray.data.rows import Rows


class Source(ABC):
    """A data set whose rows can be read by number; it is a small handle that can be sent to workers.

    Attributes:
        rows: The number of rows, at least 1.
        input_shape: The shape of an input without the batch dimension.
        input_dtype: The type of the inputs as stored.
        target_shape: The shape of a target without the batch dimension.
        target_dtype: The type of the targets: int64 or, for real numbers, float32.
        target_name: What error messages call the column of the targets.
        piece_rows: The number of rows of each piece in order. A piece is best read at once (a row group, a block).
    """

    rows: int
    input_shape: tuple[int, ...]
    input_dtype: torch.dtype
    target_shape: tuple[int, ...]
    target_dtype: torch.dtype
    target_name: str
    piece_rows: tuple[int, ...]

    @abstractmethod
    def read(self, rows: np.ndarray) -> Rows:
        """Read some rows, with as little else as possible.

        Args:
            rows: Row numbers, integers in [0, self.rows), shape (n,), in any order.

        Returns:
            Those rows, in that order.

        Raises:
            ConfigError: If a cell cannot be used; the text names column and row.
            IndexError: If a row number is out of range.
        """

    @abstractmethod
    def column(self, name: str) -> np.ndarray:
        """Read one column of numbers or text over all rows, shape (rows,); text is an object array.

        Args:
            name: The column's name.

        Raises:
            ConfigError: If there is no such column, or it holds neither numbers nor text.
        """

    @abstractmethod
    def labels(self) -> np.ndarray:
        """Read the targets of all rows: shape (rows,), int64 or, for regression, float32.

        Raises:
            ConfigError: If the targets are unknown without reading all data.
        """

    @abstractmethod
    def targets(self) -> Iterator[tuple[int, np.ndarray]]:
        """Read the targets of all rows, piece by piece, as far as possible without reading the inputs.

        Yields:
            The number of the piece's first row, and its targets, shape (n, *target_shape), int64 or float32.

        Raises:
            ConfigError: If a target is null, not finite, or unlike the others in shape.
        """

    @abstractmethod
    def check(self, name: str, *, inputs: bool) -> None:
        """Check all numbers that a run will use before it begins, in bounded memory; cells to be decoded are left out.

        Args:
            name: What to call the data in error messages.
            inputs: Whether to check the inputs, too, and not only the targets.

        Raises:
            ConfigError: If a number is null, NaN or infinite, or a list has another length; the text names row and
                column.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a SHA-256 in hex that identifies the content cheaply; it is the same wherever the data are opened."""

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield all row numbers in order, piece by piece, for a pass over the data in bounded memory."""
        for start, stop in pairwise(self.starts()):
            yield np.arange(start, stop)

    def starts(self) -> np.ndarray:
        """Return the number of the first row of each piece, and at the end the number of rows, as int64."""
        return np.cumsum((0, *self.piece_rows), dtype=np.int64)
