"""The part of the configuration file that says how the penalty grows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field

from pisa_ray.cli.config_section import NotNegative, Positive, Section
from pisa_ray.schedulers import (
    Constant,
    Geometric,
    LagrangianDescent,
    Matched,
    OnlineK0,
    Plateau,
    ResidualBalancing,
    Shape,
    Trapezoid,
)
from pisa_ray.schedulers import SigmaSchedule as Schedule


class ConstantSection(Section):
    """`sigma_schedule: {kind: constant}`."""

    kind: Literal["constant"]

    def build(self) -> Schedule:
        """As the trainer takes it."""
        return Constant()


class GeometricSection(Section):
    """`sigma_schedule: {kind: geometric}`."""

    kind: Literal["geometric"]
    gamma: Annotated[float, Field(gt=0, le=1)] = Geometric().gamma
    k0: Annotated[int, Field(ge=1)] = Geometric().k0

    def build(self) -> Schedule:
        """As the trainer takes it."""
        return Geometric(self.gamma, self.k0)


class MatchedSection(Section):
    """`sigma_schedule: {kind: matched}`."""

    kind: Literal["matched"]
    growth: Annotated[float, Field(ge=1)] = Matched.growth
    rounds: Annotated[int, Field(ge=1)] | None = None

    def build(self) -> Schedule:
        """As the trainer takes it."""
        return Matched(self.growth, self.rounds)


class ShapeSection(Section):
    """`sigma_schedule: {kind: shape}`."""

    kind: Literal["shape"]
    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    warmup: Annotated[int, Field(ge=0)] = 0

    def build(self) -> Schedule:
        """As the trainer takes it."""
        return Shape(self.name, self.options, self.warmup)


class TrapezoidSection(Section):
    """`sigma_schedule: {kind: trapezoid}`."""

    kind: Literal["trapezoid"]
    warmup: Annotated[float, Field(ge=0, le=1)] = Trapezoid.warmup
    cooldown: Annotated[float, Field(ge=0, le=1)] = Trapezoid.cooldown
    growth: Annotated[float, Field(ge=1)] = Trapezoid.growth
    rounds: Annotated[int, Field(ge=1)] | None = None

    def build(self) -> Schedule:
        """As the trainer takes it."""
        return Trapezoid(self.warmup, self.cooldown, self.growth, self.rounds)


class AdaptiveSection(Section):
    """What all schedules share that look at rounds."""

    factor: Annotated[float, Field(gt=1)] = ResidualBalancing.factor
    most: Annotated[float, Field(ge=1)] = ResidualBalancing.most
    every: Annotated[int, Field(ge=1)] = ResidualBalancing.every

    def shared(self) -> dict[str, Any]:
        """The settings of all of them."""
        return {"factor": self.factor, "most": self.most, "every": self.every}


class ResidualBalancingSection(AdaptiveSection):
    """`sigma_schedule: {kind: residual_balancing}`."""

    kind: Literal["residual_balancing"]
    ratio: Positive = ResidualBalancing.ratio

    def build(self) -> Schedule:
        """As the trainer takes it."""
        return ResidualBalancing(**self.shared(), ratio=self.ratio)


class LagrangianDescentSection(AdaptiveSection):
    """`sigma_schedule: {kind: lagrangian_descent}`."""

    kind: Literal["lagrangian_descent"]
    tolerance: NotNegative = LagrangianDescent.tolerance

    def build(self) -> Schedule:
        """As the trainer takes it."""
        return LagrangianDescent(**self.shared(), tolerance=self.tolerance)


class PlateauSection(AdaptiveSection):
    """`sigma_schedule: {kind: plateau}`."""

    kind: Literal["plateau"]
    every: Annotated[int, Field(ge=1)] = Plateau.every
    patience: Annotated[int, Field(ge=1)] = Plateau.patience
    threshold: NotNegative = Plateau.threshold
    smoothing: Annotated[float, Field(ge=0, lt=1)] = Plateau.smoothing

    def build(self) -> Schedule:
        """As the trainer takes it."""
        return Plateau(**self.shared(), patience=self.patience, threshold=self.threshold, smoothing=self.smoothing)


class OnlineK0Section(Section):
    """`sigma_schedule: {kind: online_k0}`."""

    kind: Literal["online_k0"]
    k0: Annotated[int, Field(ge=1)] = OnlineK0.k0
    gamma: Annotated[float, Field(gt=0, lt=1)] = OnlineK0.gamma
    warmup: Annotated[float, Field(ge=0, le=1)] = OnlineK0.warmup
    factor: Annotated[float, Field(gt=1)] = OnlineK0.factor
    length: Annotated[int, Field(ge=2)] = OnlineK0.length
    share: Annotated[float, Field(gt=0, le=1)] = OnlineK0.share
    longer: Annotated[float, Field(ge=0, lt=1)] = OnlineK0.longer
    shorter: Annotated[float, Field(ge=0, lt=1)] = OnlineK0.shorter
    most: Annotated[float, Field(gt=1)] = OnlineK0.most
    rounds: Annotated[int, Field(ge=1)] | None = None

    def build(self) -> Schedule:
        """As the trainer takes it."""
        return OnlineK0(**self.model_dump(exclude={"kind"}))


SigmaSchedule = Annotated[
    ConstantSection
    | GeometricSection
    | MatchedSection
    | ShapeSection
    | TrapezoidSection
    | ResidualBalancingSection
    | LagrangianDescentSection
    | PlateauSection
    | OnlineK0Section,
    Field(discriminator="kind"),
]


def section_of(schedule: Constant | Matched | Trapezoid) -> ConstantSection | MatchedSection | TrapezoidSection:
    """The section that says what a schedule does."""
    if isinstance(schedule, Trapezoid):
        return TrapezoidSection(kind="trapezoid", **asdict(schedule))
    if isinstance(schedule, Matched):
        return MatchedSection(kind="matched", **asdict(schedule))
    return ConstantSection(kind="constant")
