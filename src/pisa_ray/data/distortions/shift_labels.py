"""Labels that contradict those of other shards."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from pisa_ray.data.base import Source
from pisa_ray.data.distortions.distortion import Distortion, Origin, Shards
from pisa_ray.data.keys import uniform
from pisa_ray.errors import ConfigError
from pisa_ray.fields import Count, Share
from pisa_ray.later import torch


@dataclass(frozen=True)
class ShiftLabels(Distortion):
    """Contradictory labels, where class y becomes (y + 1) mod classes in a share of the rows.

    The choice of rows is keyed (seed, shard, row), so a row has its wrong label for the whole run, in training and in
    evaluations. By default it is the first shard that contradicts all others.

    Attributes:
        share: The probability that the label of a row is shifted.
        classes: The number of classes; None: the largest label of the training data + 1.
    """

    kind: ClassVar[str] = "shift_labels"

    share: Share = 1.0
    shards: Shards | None = field(default=(0,), kw_only=True)
    classes: Count | None = field(default=None, kw_only=True)

    def fit(self, source: Source, shards: int) -> Self:
        """Count the classes; see `Distortion.fit`."""
        super().fit(source, shards)
        labels = source.labels()
        if labels.dtype.kind == "f" or labels.ndim != 1 or labels.min() < 0:
            raise ConfigError(
                f"partition.distortion is {type(self).__name__}, but data.label does not hold one class from 0 a row: "
                "use such labels, or another distortion."
            )
        there = int(labels.max()) + 1
        if self.classes is not None and self.classes < there:
            raise ConfigError(
                f"{type(self).__name__}.classes is {self.classes}, but the training data have the label {there - 1}: "
                f"give at least {there}, or leave it out."
            )
        return replace(self, classes=self.classes or there)

    def apply(self, x: torch.Tensor, y: torch.Tensor, origin: Origin) -> tuple[torch.Tensor, torch.Tensor]:
        """Shift labels; see `Distortion.__call__`."""
        if self.classes is None:
            raise RuntimeError("ShiftLabels is used without fit()")
        chosen = uniform(origin.rows, origin.seed, "shift_labels", origin.shard) < self.share
        return x, torch.where(torch.from_numpy(chosen).to(y.device), (y + 1) % self.classes, y)
