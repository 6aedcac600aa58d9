"""What every kind of training data can do."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch

from pisa_ray.data.rows import Rows


class Source(ABC):
    """A data set that rows can be read from by number: a small handle that can be sent to workers.

    Attributes:
        rows: Number of rows, at least 1.
        input_shape: One input's shape without the batch dimension.
        input_dtype: The inputs' type as stored.
        target_shape: One target's shape without the batch dimension.
        target_dtype: The targets' type: int64 or, for real numbers, float32.
        target_name: What error messages call their column.
        piece_rows: How many rows each piece has that is best read at once (a row group, a block), in order.
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
        """Reads some rows, and as little else as possible.

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
        """Reads one column of numbers or text over all rows, shape (rows,), text as an object array.

        Args:
            name: The column's name.

        Raises:
            ConfigError: If there is no such column, or it holds something else.
        """

    @abstractmethod
    def labels(self) -> np.ndarray:
        """Reads the targets of all rows: shape (rows,), int64 or, for regression, float32.

        Raises:
            ConfigError: If the targets cannot be known without reading all data.
        """

    @abstractmethod
    def targets(self) -> Iterator[tuple[int, np.ndarray]]:
        """Reads the targets of all rows, piece by piece, as far as they can be known without reading the inputs.

        Yields:
            The number of the piece's first row, and its targets, shape (n, *target_shape), int64 or float32.

        Raises:
            ConfigError: If a target is null, not finite, or unlike the others in shape.
        """

    @abstractmethod
    def check(self, name: str, *, inputs: bool) -> None:
        """Looks before a run begins at all numbers that it will use, in bounded memory; not at what must be decoded.

        Args:
            name: What to call the data in error messages.
            inputs: Whether to look at the inputs, too, and not only at the targets.

        Raises:
            ConfigError: If a number is null, NaN or infinite, or a list has another length; names row and column.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Identifies the content, cheaply: a SHA-256 in hex that is the same wherever the same data are opened."""

    def pieces(self) -> Iterator[np.ndarray]:
        """Yields all row numbers in order, piece by piece, for a pass over the data in bounded memory."""
        for start, stop in pairwise(self.starts()):
            yield np.arange(start, stop)

    def starts(self) -> np.ndarray:
        """Gives the number of each piece's first row, and at the end the number of rows; int64."""
        return np.cumsum((0, *self.piece_rows), dtype=np.int64)
