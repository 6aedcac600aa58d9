"""Any partition with a distortion of its shards' rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pisa_ray.data.base import Source
from pisa_ray.data.distortions import Distortion
from pisa_ray.data.partitions.partition import Partition


@dataclass(frozen=True)
class Distorted(Partition):
    """Any partition with a distortion of its shards' rows, such as `Distorted(LabelSkew(10), Rotate(36))`.

    Attributes:
        partition: The partition, which may be `Distorted` itself; then its distortion comes first.
        distortion: The change of the rows.
    """

    partition: Partition
    distortion: Distortion

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cut the data as the partition does; see `Partition.split`."""
        return self.partition.split(source, seed)

    @property
    def distortions(self) -> tuple[Distortion, ...]:
        """The distortions of the partition, then this one."""
        return (*self.partition.distortions, self.distortion)

    def written(self) -> Any:
        """See Options; the partition's section has `distort`, a list if there are several."""
        section = self.partition.written()
        before = section.get("distort")
        mine = self.distortion.written()
        return section | {
            "distort": mine if before is None else [*(before if isinstance(before, list) else [before]), mine]
        }
