"""A source that decodes its rows once, for processes that train on the same data several times."""

from copy import copy

import numpy as np

from pisa_ray.data.base import Source
from pisa_ray.data.rows import Rows


def kept(source: Source) -> Source:
    """Return a source that reads another one as a whole and keeps it in memory; every reading is a view of that.

    Args:
        source: The other source, which must fit into this process's memory.

    Example:
        >>> from pisa_ray.data import open_source
        >>> source = kept(open_source("digits"))
        >>> source.read(np.array([5, 1])).batch(np.array([1]))[1].tolist() == source.labels()[[1]].tolist()
        True
    """
    mine, whole = copy(source), list[Rows]()

    def read(rows: np.ndarray) -> Rows:
        if not whole:
            whole.append(type(source).read(mine, np.arange(source.rows)))
        return whole[0].take(np.asarray(rows, dtype=np.int64))

    mine.read = read  # type: ignore[method-assign]
    return mine
