"""Shards with noise on their inputs that grows from shard to shard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pisa_ray.data.distortions import Distortion, Noise
from pisa_ray.data.partitions.iid import IID
from pisa_ray.data.partitions.partition import Partition
from pisa_ray.fields import Count, NotNegative

if TYPE_CHECKING:
    from pisa_ray.data.base import Source


@dataclass(frozen=True)
class FeatureNoise(Partition):
    """Shuffled rows, dealt out equally; the inputs of shard i get noise of standard deviation level * i / (shards - 1).

    The same as `Distorted(IID(shards), Noise(level))`.

    Attributes:
        shards: The number of shards.
        level: The standard deviation of the noise in the last shard, in units of the inputs of the model.
    """

    kind: ClassVar[str] = "feature_noise"

    shards: Count
    level: NotNegative

    def split(self, source: Source, seed: int) -> list[np.ndarray]:
        """Cut the data as `IID` does; see `Partition.split`."""
        return IID(self.shards).split(source, seed)

    @property
    def distortions(self) -> tuple[Distortion, ...]:
        """Noise that grows from shard to shard."""
        return (Noise(self.level),)
