"""What makes one shard's rows unlike the others': noise, other labels, turned and recoloured images.

For studies of shards that contradict each other. A distortion changes a shard's mini-batches, and its own rows when
they are evaluated (training or held-out ones); test data and separate validation data stay as they are.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pisa_ray import checks
from pisa_ray.data.base import Source
from pisa_ray.data.keys import generator, uniform
from pisa_ray.errors import ConfigError


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
class Distortion(ABC):
    """Changes what a shard's rows look like to the model: a pure function of the batch and its `Origin`.

    Attributes:
        shards: Numbers of the shards it is for; None (the default unless a class says otherwise): all.
    """

    kind: ClassVar[str]
    images: ClassVar[bool] = False  # whether it needs them
    shards: tuple[int, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        chosen = checks.sequence(checks.whole(least=0), "a list of shards such as [0, 1]")
        checks.settle(self, shards=chosen | checks.nothing)

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


@dataclass(frozen=True)
class Noise(Distortion):
    """Normal noise on the inputs, of standard deviation level * i / (m - 1) in shard i of m.

    It is drawn anew for every mini-batch, keyed (seed, shard, mini-batch), like an augmentation; evaluations have none.

    Attributes:
        level: The last shard's standard deviation, in units of the model's inputs; not negative.
    """

    kind: ClassVar[str] = "noise"
    level: float

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.settle(self, level=checks.number(least=0))

    def check(self, x: Tensor) -> None:
        """Refuses integers, such as token numbers; see `Distortion.check`."""
        if not (x.is_floating_point() or x.is_complex()):
            raise ConfigError(
                f"partition.distortion is {type(self).__name__}, but the model's inputs are integers, which noise "
                "would make real numbers: set data.dtype to float32, or use another distortion."
            )

    def apply(self, x: Tensor, y: Tensor, origin: Origin) -> tuple[Tensor, Tensor]:
        """Adds noise to a training batch; see `Distortion.__call__`."""
        level = self.level * origin.shard / max(1, origin.shards - 1)
        if origin.batch is None or not level:
            return x, y
        random = generator(origin.seed, "feature_noise", origin.shard, origin.batch)
        return x + torch.from_numpy(random.standard_normal(x.shape, dtype=np.float32)).to(x.device) * level, y


@dataclass(frozen=True)
class ShiftLabels(Distortion):
    """Contradictory labels: class y becomes (y + 1) mod classes in a share of the rows.

    Which rows is keyed (seed, shard, row): a row has its wrong label for the whole run, in training and in evaluations.

    Attributes:
        share: Probability of a row to be shifted, in [0, 1]; default 1, all of them.
        shards: Default (0,): the first shard contradicts all others.
        classes: How many there are; None: the largest label of the training data + 1.
    """

    kind: ClassVar[str] = "shift_labels"
    share: float = 1.0
    shards: tuple[int, ...] | None = field(default=(0,), kw_only=True)
    classes: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.settle(self, share=checks.number(least=0, most=1), classes=checks.whole(least=1) | checks.nothing)

    def fit(self, source: Source, shards: int) -> Self:
        """Counts the classes; see `Distortion.fit`."""
        super().fit(source, shards)
        labels = source.labels()
        if labels.dtype.kind == "f" or labels.ndim != 1 or labels.min() < 0:
            raise ConfigError(
                f"partition.distortion is {type(self).__name__}, but data.label does not hold one class from 0 a row: "
                "use such labels, or another distortion."
            )
        return replace(self, classes=self.classes or int(labels.max()) + 1)

    def apply(self, x: Tensor, y: Tensor, origin: Origin) -> tuple[Tensor, Tensor]:
        """Shifts labels; see `Distortion.__call__`."""
        if self.classes is None:
            raise RuntimeError("ShiftLabels is used without fit()")
        chosen = uniform(origin.rows, origin.seed, "shift_labels", origin.shard) < self.share
        return x, torch.where(torch.from_numpy(chosen).to(y.device), (y + 1) % self.classes, y)


@dataclass(frozen=True)
class Rotate(Distortion):
    """Images turned counter-clockwise by step * i degrees in shard i.

    Bilinear; what comes from outside the image is 0, and corners that leave it are lost. A whole turn is exactly none.

    Attributes:
        step: Degrees from one shard to the next.
    """

    kind: ClassVar[str] = "rotate"
    images: ClassVar[bool] = True
    step: float

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.settle(self, step=checks.number())

    def apply(self, x: Tensor, y: Tensor, origin: Origin) -> tuple[Tensor, Tensor]:
        """Turns images; see `Distortion.__call__`."""
        degrees = self.step * origin.shard % 360
        if not degrees:
            return x, y
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        height, width = x.shape[-2:]
        # From a pixel of the result to its place in x, in coordinates where both sides reach from -1 to 1.
        back = [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]
        turn = torch.tensor(back, dtype=x.dtype, device=x.device).expand(len(x), 2, 3)
        grid = functional.affine_grid(turn, list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False), y


@dataclass(frozen=True)
class Recolour(Distortion):
    """Images in other colours, one change a shard, keyed (seed, shard).

    With 3 channels the hue is turned about the grey axis by an angle drawn from all 360 degrees; the mean over the
    channels stays. Others get another contrast about 0.5, the middle of the default range: 0.5 + a (x - 0.5), the size
    of a between 0.5 and 1.5, and a < 0 (inverted) in every other shard on average.
    """

    kind: ClassVar[str] = "recolour"
    images: ClassVar[bool] = True

    def apply(self, x: Tensor, y: Tensor, origin: Origin) -> tuple[Tensor, Tensor]:
        """Recolours images; see `Distortion.__call__`."""
        random = generator(origin.seed, "recolour", origin.shard)
        if x.shape[1] != 3:
            size, sign = 0.5 + random.random(), 1 if random.random() < 0.5 else -1
            return 0.5 + sign * size * (x - 0.5), y
        angle = 2 * math.pi * random.random()
        third, turned = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
        # The rows of the rotation matrix are one another's cyclic shifts.
        own, following, before = math.cos(angle) + third, third - turned, third + turned
        return own * x + following * x.roll(-1, 1) + before * x.roll(1, 1), y
