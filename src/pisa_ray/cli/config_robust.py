"""The part of the configuration file that says what is done against bad shards."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pisa_ray.cli.config_section import OF_CLASS, ClassSection, Positive


class TrimmedMeanSection(ClassSection):
    """`robust: {kind: trimmed_mean}`."""

    classes: ClassVar = {"trimmed_mean": "TrimmedMean"}

    kind: Literal["trimmed_mean"]
    share: Annotated[float, Field(ge=0, lt=0.5)] = OF_CLASS


class MedianSection(ClassSection):
    """`robust: {kind: median}`."""

    classes: ClassVar = {"median": "Median"}

    kind: Literal["median"]


class ClipSection(ClassSection):
    """`robust: {kind: clip}`."""

    classes: ClassVar = {"clip": "Clip"}

    kind: Literal["clip"]
    factor: Positive = OF_CLASS


AnyRobust = TrimmedMeanSection | MedianSection | ClipSection
