"""What makes one shard's rows unlike the others': noise, other labels, turned and recoloured images.

For studies of shards that contradict each other. A distortion changes a shard's mini-batches, and its own rows when
they are evaluated (training or held-out ones); test data and separate validation data stay as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pisa_ray import checks
from pisa_ray.errors import ConfigError
from pisa_ray.options import Kind

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pisa_ray.data.base import Source

#: Numbers of shards.
Shards = Annotated[tuple[int, ...], checks.sequence(checks.whole(least=0), "a list of shards such as [0, 1]")]


@dataclass(frozen=True)
class Origin:
    """Where a batch comes from: all that a distortion may depend on, so that it is the same on every worker.

    Attributes:
        seed: The run's seed.
        shard: The shard's number, from 0.
        shards: How many shards there are.
        rows: The rows' numbers in the training source, int64, shape (b,).
        batch: Number of the shard's mini-batch, from 0; None: an evaluation.
    """

    seed: int
    shard: int
    shards: int
    rows: np.ndarray
    batch: int | None = None


@dataclass(frozen=True)
class Distortion(Kind, ABC, family="distort", homes=("pisa_ray.data.distortions",)):
    """Changes what a shard's rows look like to the model: a pure function of the batch and its `Origin`.

    Attributes:
        shards: Numbers of the shards it is for; None (the default unless a class says otherwise): all.
    """

    text: ClassVar[str] = "a distortion such as Rotate(step=36)"
    usual: ClassVar[str] = "noise"
    images: ClassVar[bool] = False  # whether it needs them

    shards: Shards | None = field(default=None, kw_only=True)

    def fit(self, source: Source, shards: int) -> Self:
        """Finds out what it has to know about the data.

        Args:
            source: The training data.
            shards: How many shards there are.

        Returns:
            The distortion to be used.

        Raises:
            ConfigError: If these data cannot be distorted like this, or it names a shard that there is not.
        """
        wrong = [shard for shard in self.shards or () if not 0 <= shard < shards]
        if wrong:
            raise ConfigError(
                f"partition.distortion.shards has {wrong[0]}, but the shards are 0 to {shards - 1}: use only these."
            )
        return self

    def check(self, x: Tensor) -> None:
        """Looks at some model inputs, shape (b, ...), before anything starts.

        Raises:
            ConfigError: If images are needed and these are none.
        """
        if self.images and (x.dim() != 4 or not x.is_floating_point()):
            raise ConfigError(
                f"partition.distortion is {type(self).__name__}, but the model's inputs have shape "
                f"{tuple(x.shape[1:])} and type {x.dtype}, and images of real numbers, (channels, height, width), are "
                "expected: use images, a data.transform that makes them, or another distortion."
            )

    def __call__(self, x: Tensor, y: Tensor, origin: Origin) -> tuple[Tensor, Tensor]:
        """Distorts a batch.

        Args:
            x: Model inputs, after preprocessing, shape (b, ...); not changed.
            y: Targets, shape (b, ...); not changed.
            origin: Where the batch comes from.

        Returns:
            What the model gets instead, of the same shapes, on the same devices.
        """
        if self.shards is not None and origin.shard not in self.shards:
            return x, y
        return self.apply(x, y, origin)

    @abstractmethod
    def apply(self, x: Tensor, y: Tensor, origin: Origin) -> tuple[Tensor, Tensor]:
        """Distorts a batch of a shard that it is for; see `__call__`."""
