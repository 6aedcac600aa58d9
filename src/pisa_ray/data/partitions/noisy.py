"""Shards with noise on their inputs that grows from shard to shard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pisa_ray.data.distortions import Distortion, Noise
from pisa_ray.data.partitions.iid import IID
from pisa_ray.fields import NotNegative


@dataclass(frozen=True)
class FeatureNoise(IID):
    """Shuffled rows, dealt out equally; the inputs of shard i get noise of standard deviation level * i / (shards - 1).

    The same as `Distorted(IID(shards), Noise(level))`.

    Attributes:
        shards: The number of shards.
        level: The standard deviation of the noise in the last shard, in units of the inputs of the model.
    """

    kind: ClassVar[str] = "feature_noise"

    level: NotNegative

    @property
    def distortions(self) -> tuple[Distortion, ...]:
        """Noise that grows from shard to shard."""
        return (Noise(self.level),)
