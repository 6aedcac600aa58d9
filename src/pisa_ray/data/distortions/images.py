"""Turned and recoloured images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from pisa_ray.data.distortions.distortion import Distortion, Origin
from pisa_ray.data.keys import generator
from pisa_ray.later import torch


@dataclass(frozen=True)
class Rotate(Distortion):
    """Images turned counter-clockwise by step * i degrees in shard i.

    Pixels are interpolated bilinearly. Those from outside the image are 0, and corners that leave it are lost. A whole
    turn changes nothing, exactly.

    Attributes:
        step: The degrees from one shard to the next.
    """

    kind: ClassVar[str] = "rotate"
    images: ClassVar[bool] = True

    step: float

    def apply(self, x: torch.Tensor, y: torch.Tensor, origin: Origin) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn images; see `Distortion.__call__`."""
        degrees = self.step * origin.shard % 360
        if not degrees:
            return x, y
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        height, width = x.shape[-2:]
        # The place in x of each pixel of the result, in coordinates where both sides reach from -1 to 1.
        back = [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]
        turn = torch.tensor(back, dtype=x.dtype, device=x.device).expand(len(x), 2, 3)
        grid = torch.nn.functional.affine_grid(turn, list(x.shape), align_corners=False)
        return torch.nn.functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False), y


@dataclass(frozen=True)
class Recolour(Distortion):
    """Images in other colours, with one change per shard, keyed (seed, shard).

    With 3 channels the hue is turned about the grey axis by an angle drawn from all 360 degrees; the mean over the
    channels stays. Other images get another contrast about 0.5, the middle of the default range: 0.5 + a (x - 0.5),
    with |a| between 0.5 and 1.5, and a < 0 (inverted) in every other shard on average.
    """

    kind: ClassVar[str] = "recolour"

    images: ClassVar[bool] = True

    def apply(self, x: torch.Tensor, y: torch.Tensor, origin: Origin) -> tuple[torch.Tensor, torch.Tensor]:
        """Recolour images; see `Distortion.__call__`."""
        random = generator(origin.seed, "recolour", origin.shard)
        if x.shape[1] != 3:
            size, sign = 0.5 + random.random(), 1 if random.random() < 0.5 else -1
            return 0.5 + sign * size * (x - 0.5), y
        angle = 2 * math.pi * random.random()
        third, turned = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
        # The rows of the rotation matrix are one another's cyclic shifts.
        own, following, before = math.cos(angle) + third, third - turned, third + turned
        return own * x + following * x.roll(-1, 1) + before * x.roll(1, 1), y
