"""Which rows of a shard its next mini-batch holds."""

import numpy as np

from pisa_ray.data.keys import generator
from pisa_ray.errors import ConfigError


class BatchStream:
    """Mini-batches without replacement from one shard, as a pure function of the shard's report count.

    The shard's epochs, each a permutation of its rows keyed (seed, shard, epoch), are laid end to end; batch k is the
    piece [k * size, (k + 1) * size) of that endless line and may straddle two epochs. So every epoch covers every row
    exactly once, whoever hosts the shard.

    Args:
        seed: The run's seed.
        shard: The shard's id.
        rows: How many rows the shard has, at least 1.
        batch_size: Rows a batch, at least 1; a shard with fewer rows uses all of them. None: the full local batch, in
            the shard's own order.

    Attributes:
        size: Rows in each batch, min(batch_size, rows).

    Raises:
        ConfigError: If rows or batch_size is below 1.
    """

    def __init__(self, seed: int, shard: int, rows: int, batch_size: int | None):
        if rows < 1:
            raise ConfigError(f"Shard {shard} has {rows} rows, but a shard needs at least 1: use fewer shards.")
        if batch_size is not None and batch_size < 1:
            raise ConfigError(
                f'batch_size is {batch_size}, but at least 1 is needed: give a positive number or "full".'
            )
        self.seed, self.shard, self.rows = seed, shard, rows
        self.size = rows if batch_size is None else min(batch_size, rows)
        self._full = batch_size is None
        self._permutations: dict[int, np.ndarray] = {}  # a cache only: the answers do not depend on it

    def positions(self, count: int) -> np.ndarray:
        """Gives the batch of the shard's `count`-th report.

        Args:
            count: How often the shard has reported before, from 0.

        Returns:
            Positions within the shard's rows, int64, shape (size,).
        """
        if self._full:
            return np.arange(self.rows, dtype=np.int64)
        start, stop = count * self.size, (count + 1) * self.size
        # A batch is no longer than an epoch, so it touches two epochs at most.
        epochs = range(start // self.rows, (stop - 1) // self.rows + 1)
        self._permutations = {epoch: self._permutation(epoch) for epoch in epochs}
        borders = [epoch * self.rows for epoch in epochs]
        parts = zip(self._permutations.values(), borders, strict=True)
        return np.concatenate([part[max(0, start - border) : stop - border] for part, border in parts])

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch in self._permutations:
            return self._permutations[epoch]
        return generator(self.seed, "batches", self.shard, epoch).permutation(self.rows).astype(np.int64, copy=False)
