"""The part of the configuration file that says how the penalty grows."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from pisa_ray.cli.config_section import OF_CLASS, ClassSection, NotNegative, Positive

if TYPE_CHECKING:
    from pisa_ray.schedulers import Constant, Matched, Trapezoid


class ConstantSection(ClassSection):
    """`sigma_schedule: {kind: constant}`."""

    classes: ClassVar = {"constant": "Constant"}

    kind: Literal["constant"]


class GeometricSection(ClassSection):
    """`sigma_schedule: {kind: geometric}`."""

    classes: ClassVar = {"geometric": "Geometric"}

    kind: Literal["geometric"]
    gamma: Annotated[float, Field(gt=0, le=1)] = OF_CLASS
    k0: Annotated[int, Field(ge=1)] = OF_CLASS


class MatchedSection(ClassSection):
    """`sigma_schedule: {kind: matched}`."""

    classes: ClassVar = {"matched": "Matched"}

    kind: Literal["matched"]
    growth: Annotated[float, Field(ge=1)] = OF_CLASS
    rounds: Annotated[int, Field(ge=1)] | None = None


class ShapeSection(ClassSection):
    """`sigma_schedule: {kind: shape}`."""

    classes: ClassVar = {"shape": "Shape"}

    kind: Literal["shape"]
    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    warmup: Annotated[int, Field(ge=0)] = OF_CLASS


class TrapezoidSection(ClassSection):
    """`sigma_schedule: {kind: trapezoid}`."""

    classes: ClassVar = {"trapezoid": "Trapezoid"}

    kind: Literal["trapezoid"]
    warmup: Annotated[float, Field(ge=0, le=1)] = OF_CLASS
    cooldown: Annotated[float, Field(ge=0, le=1)] = OF_CLASS
    growth: Annotated[float, Field(ge=1)] = OF_CLASS
    rounds: Annotated[int, Field(ge=1)] | None = None


class AdaptiveSection(ClassSection):
    """What all schedules share that look at rounds."""

    factor: Annotated[float, Field(gt=1)] = OF_CLASS
    most: Annotated[float, Field(ge=1)] = OF_CLASS
    every: Annotated[int, Field(ge=1)] = OF_CLASS


class ResidualBalancingSection(AdaptiveSection):
    """`sigma_schedule: {kind: residual_balancing}`."""

    classes: ClassVar = {"residual_balancing": "ResidualBalancing"}

    kind: Literal["residual_balancing"]
    ratio: Positive = OF_CLASS


class LagrangianDescentSection(AdaptiveSection):
    """`sigma_schedule: {kind: lagrangian_descent}`."""

    classes: ClassVar = {"lagrangian_descent": "LagrangianDescent"}

    kind: Literal["lagrangian_descent"]
    tolerance: NotNegative = OF_CLASS


class PlateauSection(AdaptiveSection):
    """`sigma_schedule: {kind: plateau}`."""

    classes: ClassVar = {"plateau": "Plateau"}

    kind: Literal["plateau"]
    every: Annotated[int, Field(ge=1)] = OF_CLASS
    patience: Annotated[int, Field(ge=1)] = OF_CLASS
    threshold: NotNegative = OF_CLASS
    smoothing: Annotated[float, Field(ge=0, lt=1)] = OF_CLASS


class OnlineK0Section(ClassSection):
    """`sigma_schedule: {kind: online_k0}`."""

    classes: ClassVar = {"online_k0": "OnlineK0"}

    kind: Literal["online_k0"]
    k0: Annotated[int, Field(ge=1)] = OF_CLASS
    gamma: Annotated[float, Field(gt=0, lt=1)] = OF_CLASS
    warmup: Annotated[float, Field(ge=0, le=1)] = OF_CLASS
    factor: Annotated[float, Field(gt=1)] = OF_CLASS
    length: Annotated[int, Field(ge=2)] = OF_CLASS
    share: Annotated[float, Field(gt=0, le=1)] = OF_CLASS
    longer: Annotated[float, Field(ge=0, lt=1)] = OF_CLASS
    shorter: Annotated[float, Field(ge=0, lt=1)] = OF_CLASS
    most: Annotated[float, Field(gt=1)] = OF_CLASS
    rounds: Annotated[int, Field(ge=1)] | None = None


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
    from pisa_ray.schedulers import Matched, Trapezoid

    if isinstance(schedule, Trapezoid):
        return TrapezoidSection(kind="trapezoid", **asdict(schedule))
    if isinstance(schedule, Matched):
        return MatchedSection(kind="matched", **asdict(schedule))
    return ConstantSection(kind="constant")
