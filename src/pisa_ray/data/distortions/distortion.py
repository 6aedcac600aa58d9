"""The base of distortions, which make the rows of shards differ, for studies of shards that contradict each other.

A distortion changes a shard's mini-batches, and the shard's own rows (for training or held out) when they are
evaluated. It changes neither test data nor separate validation data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import numpy as np

from pisa_ray import checks
from pisa_ray.data.base import Source
from pisa_ray.errors import ConfigError
from pisa_ray.kinds import Kind
from pisa_ray.later import torch

#: The numbers of some shards.
Shards = Annotated[tuple[int, ...], checks.sequence(checks.whole(least=0), "a list of shards such as [0, 1]")]


@dataclass(frozen=True)
class Origin:
    """The origin of a batch. A distortion depends on nothing else, so that it is the same on every worker.

    Attributes:
        seed: The run's seed.
        shard: The shard's number, from 0.
        shards: How many shards there are.
        rows: The numbers of the rows in the training source, int64, shape (b,).
        batch: The number of the shard's mini-batch, from 0. None: the batch is for an evaluation.
    """

    seed: int
    shard: int
    shards: int
    rows: np.ndarray
    batch: int | None = None


@dataclass(frozen=True)
class Distortion(Kind, ABC, family="distort", homes=("pisa_ray.data.distortions",)):
    """A change of the rows that a shard gives the model, as a pure function of the batch and its `Origin`.

    Attributes:
        shards: The numbers of the shards whose rows it changes, from 0; None: all.
    """

    text: ClassVar[str] = "a distortion such as Rotate(step=36)"
    usual: ClassVar[str] = "noise"
    images: ClassVar[bool] = False  # whether it needs images

    shards: Shards | None = field(default=None, kw_only=True)

    def fit(self, source: Source, shards: int) -> Self:
        """Find out what the distortion must know about the data.

        Args:
            source: The training data.
            shards: How many shards there are.

        Returns:
            The distortion to use.

        Raises:
            ConfigError: If these data cannot be distorted like this, or `shards` names one that does not exist.
        """
        wrong = [shard for shard in self.shards or () if not 0 <= shard < shards]
        if wrong:
            raise ConfigError(
                f"partition.distortion.shards has {wrong[0]}, but the shards are 0 to {shards - 1}: use only these."
            )
        return self

    def check(self, x: torch.Tensor) -> None:
        """Check some model inputs, shape (b, ...), before anything starts.

        Raises:
            ConfigError: If the distortion needs images and these are none.
        """
        if self.images and (x.dim() != 4 or not x.is_floating_point()):
            raise ConfigError(
                f"partition.distortion is {type(self).__name__}, but the model's inputs have shape "
                f"{tuple(x.shape[1:])} and type {x.dtype}, and images of real numbers, (channels, height, width), are "
                "expected: use images, a data.transform that makes them, or another distortion."
            )

    def __call__(self, x: torch.Tensor, y: torch.Tensor, origin: Origin) -> tuple[torch.Tensor, torch.Tensor]:
        """Distort a batch.

        Args:
            x: Model inputs, after preprocessing, shape (b, ...); not changed.
            y: Targets, shape (b, ...); not changed.
            origin: Where the batch comes from.

        Returns:
            The inputs and targets for the model, of the same shapes, on the same devices.
        """
        if self.shards is not None and origin.shard not in self.shards:
            return x, y
        return self.apply(x, y, origin)

    @abstractmethod
    def apply(self, x: torch.Tensor, y: torch.Tensor, origin: Origin) -> tuple[torch.Tensor, torch.Tensor]:
        """Distort a batch of one of `shards`; see `__call__`."""
