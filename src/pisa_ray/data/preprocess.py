"""The preparation of stored inputs for the model."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pisa_ray.data.base import Source
from pisa_ray.errors import ConfigError

Transform = Callable[[Tensor, bool], Tensor]

#: The types that a model's inputs may have, by their names in configurations.
DTYPES = {"float32": torch.float32, "int64": torch.int64}


@dataclass(frozen=True)
class Preprocess:
    """The preparation of a batch: inputs get one type, and real ones are scaled, shifted by mean and divided by std.

    Attributes:
        scale: The factor on the stored numbers, e.g. 1/255; None: 1.
        mean: The mean per channel (dimension 1 of a batch) or one number for all, in scaled units; None: 0.
        std: The standard deviation per channel, positive, given together with mean.
        transform: A function of (inputs as stored, whether the batch is for training) that replaces all of this.
        dtype: The type of the model's inputs.

    Raises:
        ConfigError: If a transform is given together with another option, or mean without std.
    """

    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    transform: Transform | None = None
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.transform is not None and (self.scale, self.mean, self.std) != (None, None, None):
            raise ConfigError(
                "data.transform replaces data.scale, data.mean and data.std, but is given together with one of them: "
                "do the scaling in the transform."
            )
        if (self.mean is None) != (self.std is None):
            raise ConfigError("data.mean and data.std belong together, but only one is given: give both or neither.")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ConfigError(
                f"data.mean has {len(self.mean)} numbers and data.std {len(self.std)}, but one a channel is expected: "
                "give equally many."
            )

    def __call__(self, x: Tensor, *, training: bool) -> Tensor:
        """Prepare a batch.

        Args:
            x: Inputs as stored, shape (b, ...); not changed.
            training: Whether the batch is for training; only a transform distinguishes the two.

        Returns:
            The model's inputs, on x's device.
        """
        if self.transform is not None:
            return self.transform(x, training)
        x = x.to(self.dtype)
        if self.scale is not None:
            x = x * self.scale
        if self.mean is not None and self.std is not None:
            x = (x - _per_channel(self.mean, x)) / _per_channel(self.std, x)
        return x


def input_kind(source: Source) -> str:
    """Return the kind of a source's inputs as stored, which determines the default preparation."""
    kind = source.input_dtype
    if kind == torch.uint8 and len(source.input_shape) == 3:
        return "images of bytes"
    if kind.is_complex:
        return "complex numbers"
    return "real numbers" if kind.is_floating_point or kind == torch.bool else "integers"


def default_preprocess(
    source: Source,
    *,
    scale: float | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    transform: Transform | None = None,
    dtype: torch.dtype | None = None,
) -> Preprocess:
    """Fill in the defaults: integers stay integers, and images of bytes go to 0..1, normalised if they have colours.

    Args:
        source: The training data.
        scale: The factor; by default 1/255 for uint8 inputs with a 3-D shape, else none.
        mean: The mean per channel; by default that of the source for such inputs with 3 channels, which takes a pass
            over it in bounded memory, else none.
        std: The standard deviation per channel, with the same default.
        transform: A function that replaces all of this.
        dtype: float32 or int64; by default int64 for integers that are no images and are not scaled, complex64 for
            complex numbers, else float32.

    Returns:
        The preparation, which also serves for test data.

    Raises:
        ConfigError: If `Preprocess` raises it, if mean has neither one number nor one per channel, or if dtype is int64
            but the inputs are not integers or are to be scaled.
    """
    if transform is not None:
        if dtype is not None:
            raise ConfigError(
                "data.transform replaces data.dtype, but both are given: choose the type in the transform."
            )
        return Preprocess(scale, mean, std, transform)
    kind, scaled = input_kind(source), (scale, mean, std) != (None, None, None)
    if dtype is None:
        by_kind = {"integers": torch.float32 if scaled else torch.int64, "complex numbers": torch.complex64}
        dtype = by_kind.get(kind, torch.float32)
    if dtype == torch.int64:
        if scaled:
            raise ConfigError("data.dtype is int64, but data.scale, mean and std make real numbers: leave them out.")
        if kind not in ("integers", "images of bytes"):
            raise ConfigError(f"data.dtype is int64, but the inputs are {kind}: store integers, or use float32.")
        return Preprocess(dtype=dtype)
    if kind == "images of bytes":
        scale = 1 / 255 if scale is None else scale
        if source.input_shape[0] == 3 and mean is None and std is None:
            mean, std = _channel_statistics(source, scale)
    channels = source.input_shape[0] if source.input_shape else 1
    if mean is not None and len(mean) not in (1, channels):
        raise ConfigError(
            f"data.mean has {len(mean)} numbers, but the inputs have {channels} channels: give one a channel."
        )
    return Preprocess(scale, mean, std, dtype=dtype)


def _channel_statistics(source: Source, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # Counts of the 256 values are integers, so they are exact and do not depend on how the source is cut into pieces.
    counts = np.zeros((source.input_shape[0], 256), np.int64)
    for piece in source.pieces():
        inputs, _ = source.read(piece).batch(np.arange(len(piece)))
        counts += np.stack([channel.reshape(-1).bincount(minlength=256).numpy() for channel in inputs.unbind(1)])
    moments = [_mean_and_std([int(count) for count in channel], scale) for channel in counts]
    return tuple(mean for mean, _ in moments), tuple(std for _, std in moments)


def _mean_and_std(counts: list[int], scale: float) -> tuple[float, float]:
    n = sum(counts)
    first = sum(value * count for value, count in enumerate(counts))
    second = sum(value * value * count for value, count in enumerate(counts))
    # Python's integers do not overflow. A constant channel keeps its scale.
    return first / n * scale, math.sqrt(n * second - first * first) / n * abs(scale) or 1.0


def _per_channel(values: tuple[float, ...], x: Tensor) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2)) if x.dim() > 1 else (-1,)
    return torch.tensor(values, dtype=torch.float32, device=x.device).reshape(shape)
