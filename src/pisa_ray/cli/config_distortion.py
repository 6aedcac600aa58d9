"""The part of the configuration file that says what is done to the shards' rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pisa_ray.cli.config_section import NotNegative, Section
from pisa_ray.data import Distortion, Noise, Recolour, Rotate, ShiftLabels

Chosen = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class DistortionSection(Section):
    """What all distortions share."""

    shards: Chosen | None = None

    def chosen(self) -> tuple[int, ...] | None:
        """As distortions take it."""
        return None if self.shards is None else tuple(self.shards)


class NoiseSection(DistortionSection):
    """`distort: {kind: noise}`."""

    kind: Literal["noise"]
    level: NotNegative

    def build(self) -> Distortion:
        """As partitions take it."""
        return Noise(self.level, shards=self.chosen())


class ShiftLabelsSection(DistortionSection):
    """`distort: {kind: shift_labels}`."""

    kind: Literal["shift_labels"]
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    shards: Chosen | None = Field(default_factory=lambda: [0])

    def build(self) -> Distortion:
        """As partitions take it."""
        return ShiftLabels(self.share, shards=self.chosen())


class RotateSection(DistortionSection):
    """`distort: {kind: rotate}`."""

    kind: Literal["rotate"]
    step: float

    def build(self) -> Distortion:
        """As partitions take it."""
        return Rotate(self.step, shards=self.chosen())


class RecolourSection(DistortionSection):
    """`distort: {kind: recolour}`."""

    kind: Literal["recolour"]

    def build(self) -> Distortion:
        """As partitions take it."""
        return Recolour(shards=self.chosen())


AnyDistortion = Annotated[
    NoiseSection | ShiftLabelsSection | RotateSection | RecolourSection, Field(discriminator="kind")
]
