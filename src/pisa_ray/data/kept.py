"""A source whose rows are decoded once, for processes that train on the same data several times."""

from collections.abc import Iterator

import numpy as np

from pisa_ray.data.base import Source
from pisa_ray.data.rows import Rows


class KeptSource(Source):
    """Another source, read as a whole at the first reading and kept in memory; all readings are views on that.

    Args:
        source: The other one, which is small enough for this process.

    Example:
        >>> from pisa_ray.data import open_source
        >>> kept = KeptSource(open_source("digits"))
        >>> kept.read(np.array([5, 1])).batch(np.array([1]))[1].tolist() == kept.labels()[[1]].tolist()
        True
    """

    def __init__(self, source: Source):
        self._source = source
        self._whole: Rows | None = None
        self.rows, self.piece_rows = source.rows, source.piece_rows
        self.input_shape, self.input_dtype = source.input_shape, source.input_dtype
        self.target_shape, self.target_dtype = source.target_shape, source.target_dtype
        self.target_name = source.target_name

    def read(self, rows: np.ndarray) -> Rows:
        """Gives some rows, of which a view is enough; see `Source.read`."""
        if self._whole is None:
            self._whole = self._source.read(np.arange(self.rows))
        return self._whole.take(np.asarray(rows, dtype=np.int64))

    def column(self, name: str) -> np.ndarray:
        """Reads one column; see `Source.column`."""
        return self._source.column(name)

    def labels(self) -> np.ndarray:
        """Reads the targets; see `Source.labels`."""
        return self._source.labels()

    def targets(self) -> Iterator[tuple[int, np.ndarray]]:
        """Reads the targets; see `Source.targets`."""
        return self._source.targets()

    def check(self, name: str, *, inputs: bool) -> None:
        """Looks at the numbers; see `Source.check`."""
        self._source.check(name, inputs=inputs)

    def fingerprint(self) -> str:
        """Identifies the content; see `Source.fingerprint`."""
        return self._source.fingerprint()
