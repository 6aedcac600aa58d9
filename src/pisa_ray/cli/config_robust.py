"""The part of the configuration file that says what is done against bad shards."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pisa_ray.algorithm import Clip, Median, Robust, TrimmedMean
from pisa_ray.cli.config_section import Positive, Section


class TrimmedMeanSection(Section):
    """`robust: {kind: trimmed_mean}`."""

    kind: Literal["trimmed_mean"]
    share: Annotated[float, Field(ge=0, lt=0.5)] = TrimmedMean.share

    def build(self) -> Robust:
        """As the trainer takes it."""
        return TrimmedMean(self.share)


class MedianSection(Section):
    """`robust: {kind: median}`."""

    kind: Literal["median"]

    def build(self) -> Robust:
        """As the trainer takes it."""
        return Median()


class ClipSection(Section):
    """`robust: {kind: clip}`."""

    kind: Literal["clip"]
    factor: Positive = Clip.factor

    def build(self) -> Robust:
        """As the trainer takes it."""
        return Clip(self.factor)


AnyRobust = TrimmedMeanSection | MedianSection | ClipSection
