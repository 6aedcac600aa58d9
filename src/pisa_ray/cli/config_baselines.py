"""The parts of the configuration file that choose a baseline as the algorithm."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pisa_ray.cli.config_section import OF_CLASS, ClassSection, Decay, NotNegative, Positive


class BaselineSection(ClassSection):
    """What all baselines share: whether their optimizer takes its options shows when they are built."""


class SyncSection(BaselineSection):
    """`algorithm: {kind: sync}`."""

    classes: ClassVar = {"sync": "SyncOptimizer"}

    kind: Literal["sync"]
    lr: Positive = OF_CLASS
    optimizer: str = OF_CLASS
    options: dict[str, Any] = Field(default_factory=dict)
    remember: bool = OF_CLASS


class LocalSection(BaselineSection):
    """What methods with local steps share."""

    kind: str
    lr: Positive = OF_CLASS
    steps: Annotated[int, Field(ge=1)] = OF_CLASS
    epochs: Positive | None = OF_CLASS
    momentum: Decay = OF_CLASS
    optimizer: str = OF_CLASS
    options: dict[str, Any] = Field(default_factory=dict)


class FedAvgSection(LocalSection):
    """`algorithm: {kind: fedavg}`, `{kind: fednova}` and `{kind: mifa}`."""

    classes: ClassVar = {"fedavg": "FedAvg", "fednova": "FedNova", "mifa": "MIFA"}

    kind: Literal["fedavg", "fednova", "mifa"]


class FedProxSection(LocalSection):
    """`algorithm: {kind: fedprox}`."""

    classes: ClassVar = {"fedprox": "FedProx"}

    kind: Literal["fedprox"]
    mu: NotNegative = OF_CLASS


class ScaffoldSection(LocalSection):
    """`algorithm: {kind: scaffold}`."""

    classes: ClassVar = {"scaffold": "Scaffold"}

    kind: Literal["scaffold"]
    server_lr: Positive = OF_CLASS


class MOONSection(LocalSection):
    """`algorithm: {kind: moon}`."""

    classes: ClassVar = {"moon": "MOON"}

    kind: Literal["moon"]
    mu: NotNegative = OF_CLASS
    temperature: Positive = OF_CLASS


class FedAdamSection(LocalSection):
    """`algorithm: {kind: fedadam}` and `{kind: fedyogi}`."""

    classes: ClassVar = {"fedadam": "FedAdam", "fedyogi": "FedYogi"}

    kind: Literal["fedadam", "fedyogi"]
    server_lr: Positive = OF_CLASS
    beta1: Decay = OF_CLASS
    beta2: Decay = OF_CLASS
    tau: Positive = OF_CLASS
