"""The part of the configuration file that says what is done to the shards' rows."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pisa_ray.cli.config_section import OF_CLASS, ClassSection, NotNegative

Chosen = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class DistortionSection(ClassSection):
    """What all distortions share."""

    shards: Chosen | None = OF_CLASS


class NoiseSection(DistortionSection):
    """`distort: {kind: noise}`."""

    classes: ClassVar = {"noise": "Noise"}

    kind: Literal["noise"]
    level: NotNegative


class ShiftLabelsSection(DistortionSection):
    """`distort: {kind: shift_labels}`."""

    classes: ClassVar = {"shift_labels": "ShiftLabels"}

    kind: Literal["shift_labels"]
    share: Annotated[float, Field(ge=0, le=1)] = OF_CLASS
    shards: Chosen | None = OF_CLASS


class RotateSection(DistortionSection):
    """`distort: {kind: rotate}`."""

    classes: ClassVar = {"rotate": "Rotate"}

    kind: Literal["rotate"]
    step: float


class RecolourSection(DistortionSection):
    """`distort: {kind: recolour}`."""

    classes: ClassVar = {"recolour": "Recolour"}

    kind: Literal["recolour"]


AnyDistortion = Annotated[
    NoiseSection | ShiftLabelsSection | RotateSection | RecolourSection, Field(discriminator="kind")
]
