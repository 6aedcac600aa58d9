"""The user's own cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from pisa_ray import checks
from pisa_ray.data.base import Source
from pisa_ray.data.partitions.partition import Partition
from pisa_ray.errors import ConfigError


def _row_numbers(name: str, value: Any) -> Any:
    try:
        rows = np.asarray(value)
    except Exception:  # lists may have unequal lengths, and a user's object may raise anything
        return checks.NOT
    return tuple(rows.tolist()) if rows.size and rows.ndim == 1 and rows.dtype.kind in "iu" else checks.NOT


_SHARDS = checks.sequence(
    checks.Rule("a list of at least one row number", _row_numbers), "a list with each shard's row numbers", least=1
)
#: The row numbers of each shard; a dictionary's values, such as those by the name of a site, are numbered in order.
Cut = Annotated[
    tuple[tuple[int, ...], ...],
    checks.Rule(
        _SHARDS.text,
        lambda name, value: _SHARDS.take(name, list(value.values()) if isinstance(value, Mapping) else value),
    ),
]


@dataclass(frozen=True)
class Indices(Partition):
    """The user's own cut. Rows in none of the shards are not used.

    Attributes:
        shards: The row numbers of each shard; in Python also as the values of a mapping, in order.
    """

    kind: ClassVar[str] = "indices"

    shards: Cut

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Check and sort the user's row numbers, which do not depend on the seed. See `Partition.split`."""
        parts = [np.sort(shard) for shard in self.shards]
        for i, part in enumerate(parts):
            if part[0] < 0 or part[-1] >= source.rows:
                raise ConfigError(
                    f"partition.shards has rows {part[0]} to {part[-1]} in shard {i}, but the data have rows 0 to "
                    f"{source.rows - 1}: use only these."
                )
        values, counts = np.unique(np.concatenate(parts), return_counts=True)
        if counts.max() > 1:
            raise ConfigError(
                f"partition.shards lists row {values[counts.argmax()]} more than once, but shards must not share "
                "rows: list each row at most once."
            )
        return [part.astype(np.int64) for part in parts]
