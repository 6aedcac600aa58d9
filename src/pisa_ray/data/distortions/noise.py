"""Noise on the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pisa_ray.data.distortions.distortion import Distortion, Origin
from pisa_ray.data.keys import generator
from pisa_ray.errors import ConfigError
from pisa_ray.fields import NotNegative
from pisa_ray.later import torch


@dataclass(frozen=True)
class Noise(Distortion):
    """Normal noise on the inputs, of standard deviation level * i / (m - 1) in shard i of m.

    Like an augmentation, it is drawn anew for every mini-batch, keyed (seed, shard, mini-batch); evaluations have none.

    Attributes:
        level: The standard deviation of the noise in the last shard, in units of the inputs of the model.
    """

    kind: ClassVar[str] = "noise"

    level: NotNegative

    def check(self, x: torch.Tensor) -> None:
        """Refuse integers, such as token numbers; see `Distortion.check`."""
        if not (x.is_floating_point() or x.is_complex()):
            raise ConfigError(
                f"partition.distortion is {type(self).__name__}, but the model's inputs are integers, which noise "
                "would make real numbers: set data.dtype to float32, or use another distortion."
            )

    def apply(self, x: torch.Tensor, y: torch.Tensor, origin: Origin) -> tuple[torch.Tensor, torch.Tensor]:
        """Add noise to a training batch; see `Distortion.__call__`."""
        level = self.level * origin.shard / max(1, origin.shards - 1)
        if origin.batch is None or not level:
            return x, y
        random = generator(origin.seed, "feature_noise", origin.shard, origin.batch)
        return x + torch.from_numpy(random.standard_normal(x.shape, dtype=np.float32)).to(x.device) * level, y
