"""The rows of a shard's mini-batches."""

import numpy as np

from pisa_ray.data.keys import generator


class BatchStream:
    """The mini-batches of a shard, drawn without replacement, as a pure function of their number.

    The shard's epochs, each a permutation of its rows keyed (seed, shard, epoch), lie end to end, and batch k is the
    section [k * size, (k + 1) * size) of that endless sequence, which may reach into the next epoch. So every epoch
    covers every row exactly once, on whichever worker the shard is.

    Args:
        seed: The run's seed.
        shard: The shard's id.
        rows: The number of rows of the shard, at least 1.
        batch_size: The number of rows of a batch, at least 1; a shard with fewer rows uses all of them. None: all rows,
            in the shard's own order.

    Attributes:
        size: The number of rows of each batch, min(batch_size, rows).
    """

    def __init__(self, seed: int, shard: int, rows: int, batch_size: int | None):
        self.seed, self.shard, self.rows = seed, shard, rows
        self.size = rows if batch_size is None else min(batch_size, rows)
        self._full = batch_size is None
        self._permutations: dict[int, np.ndarray] = {}  # a cache; the results do not depend on it

    def positions(self, count: int) -> np.ndarray:
        """Return a mini-batch by its number.

        Args:
            count: How many mini-batches the shard has drawn before.

        Returns:
            Positions within the shard's rows, int64, shape (size,).
        """
        if self._full:
            return np.arange(self.rows, dtype=np.int64)
        start, stop = count * self.size, (count + 1) * self.size
        # A batch is no longer than an epoch, so it lies in at most two epochs.
        epochs = range(start // self.rows, (stop - 1) // self.rows + 1)
        self._permutations = {epoch: self._permutation(epoch) for epoch in epochs}
        borders = [epoch * self.rows for epoch in epochs]
        parts = zip(self._permutations.values(), borders, strict=True)
        return np.concatenate([part[max(0, start - border) : stop - border] for part, border in parts])

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch in self._permutations:
            return self._permutations[epoch]
        return generator(self.seed, "batches", self.shard, epoch).permutation(self.rows).astype(np.int64, copy=False)
