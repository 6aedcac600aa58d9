"""A source that decodes its rows once, for processes that train on the same data several times."""

from collections.abc import Iterator

import numpy as np

from pisa_ray.data.base import Source
from pisa_ray.data.rows import Rows


class KeptSource(Source):
    """A source that reads another one as a whole and keeps it in memory; every reading is a view of that.

    Args:
        source: The other source, which must fit into this process's memory.

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
        """Return a view of some rows; see `Source.read`."""
        if self._whole is None:
            self._whole = self._source.read(np.arange(self.rows))
        return self._whole.take(np.asarray(rows, dtype=np.int64))

    def column(self, name: str) -> np.ndarray:
        """Read one column; see `Source.column`."""
        return self._source.column(name)

    def labels(self) -> np.ndarray:
        """Read the targets; see `Source.labels`."""
        return self._source.labels()

    def targets(self) -> Iterator[tuple[int, np.ndarray]]:
        """Read the targets; see `Source.targets`."""
        return self._source.targets()

    def check(self, name: str, *, inputs: bool) -> None:
        """Check the numbers; see `Source.check`."""
        self._source.check(name, inputs=inputs)

    def fingerprint(self) -> str:
        """Identify the content; see `Source.fingerprint`."""
        return self._source.fingerprint()
