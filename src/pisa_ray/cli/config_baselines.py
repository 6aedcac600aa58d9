"""The parts of the configuration file that choose a baseline as the algorithm."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pisa_ray.algorithm import (
    MIFA,
    MOON,
    FedAdam,
    FedAvg,
    FedNova,
    FedProx,
    FedYogi,
    Method,
    Scaffold,
    SyncOptimizer,
)
from pisa_ray.cli.config_section import Decay, NotNegative, Positive, Section


class BaselineSection(Section):
    """What all baselines share: their optimizer can be tried before anything starts."""

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        try:
            self.build()
        except ValueError as error:
            raise ValueError(f"must be settings that fit together: {str(error).removesuffix('.')}") from error
        return self

    @abstractmethod
    def build(self) -> Method:
        """As the trainer takes it."""


class SyncSection(BaselineSection):
    """`algorithm: {kind: sync}`."""

    kind: Literal["sync"]
    lr: Positive = SyncOptimizer.lr
    optimizer: str = "adam"
    options: dict[str, Any] = Field(default_factory=dict)
    remember: bool = False

    def build(self) -> Method:
        """As the trainer takes it."""
        return SyncOptimizer(**self.model_dump(exclude={"kind"}))


class LocalSection(BaselineSection):
    """What methods with local steps share."""

    kind: str
    lr: Positive = FedAvg.lr
    steps: Annotated[int, Field(ge=1)] = FedAvg.steps
    epochs: Positive | None = None
    momentum: Decay = 0.0
    optimizer: str = "sgd"
    options: dict[str, Any] = Field(default_factory=dict)

    def build(self) -> Method:
        """As the trainer takes it."""
        method: Method = KINDS[self.kind](**self.model_dump(exclude={"kind"}))
        return method


class FedAvgSection(LocalSection):
    """`algorithm: {kind: fedavg}`, `{kind: fednova}` and `{kind: mifa}`."""

    kind: Literal["fedavg", "fednova", "mifa"]


class FedProxSection(LocalSection):
    """`algorithm: {kind: fedprox}`."""

    kind: Literal["fedprox"]
    mu: NotNegative = FedProx.mu


class ScaffoldSection(LocalSection):
    """`algorithm: {kind: scaffold}`."""

    kind: Literal["scaffold"]
    server_lr: Positive = Scaffold.server_lr


class MOONSection(LocalSection):
    """`algorithm: {kind: moon}`."""

    kind: Literal["moon"]
    mu: NotNegative = MOON.mu
    temperature: Positive = MOON.temperature


class FedAdamSection(LocalSection):
    """`algorithm: {kind: fedadam}` and `{kind: fedyogi}`."""

    kind: Literal["fedadam", "fedyogi"]
    server_lr: Positive = FedAdam.server_lr
    beta1: Decay = FedAdam.beta1
    beta2: Decay = FedAdam.beta2
    tau: Positive = FedAdam.tau


#: The classes by their kinds.
KINDS: dict[str, Any] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fednova": FedNova,
    "scaffold": Scaffold,
    "moon": MOON,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "mifa": MIFA,
}
