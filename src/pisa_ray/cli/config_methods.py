"""The parts of the configuration file that choose the method: algorithm and preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator
from torch import nn

from pisa_ray.algorithm import (
    AUTO,
    NSISA,
    PISA,
    SISA,
    SISAD,
    AdaGrad,
    Adam,
    Auto,
    EmpiricalFisher,
    FisherDiagonal,
    GaussNewton,
    Groups,
    Hessian,
    HessianDiagonal,
    Identity,
    Instantaneous,
    Method,
    Preconditioner,
    RMSProp,
    SecondMoment,
    Settings,
)
from pisa_ray.cli.config_baselines import (
    FedAdamSection,
    FedAvgSection,
    FedProxSection,
    MOONSection,
    ScaffoldSection,
    SyncSection,
)
from pisa_ray.cli.config_section import Decay, NotNegative, Positive, Section
from pisa_ray.trainer.start import default_method


class HintSection(Section):
    """`{hint: 3}` in place of a number."""

    hint: Positive

    def build(self) -> Auto:
        """As the method takes it."""
        return Auto(self.hint)


#: A number, or what the automatic start makes of it.
Automatic = Positive | HintSection | Literal["auto"]


def _set(value: float | HintSection | str) -> float | Auto:
    return value.build() if isinstance(value, HintSection) else AUTO if isinstance(value, str) else value


class MethodSection(Section):
    """What all ADMM methods share."""

    sigma: Automatic = "auto"
    rho: NotNegative | HintSection | Literal["auto"] = "auto"
    lam: NotNegative = Field(default=0.0, alias="lambda")
    reset_duals: bool = False
    local_steps: Annotated[int, Field(ge=1)] = 1

    def shared(self) -> dict[str, Any]:
        """The settings that all ADMM methods have."""
        plain = {name: getattr(self, name) for name in ("lam", "reset_duals", "local_steps")}
        return plain | {"sigma": _set(self.sigma), "rho": _set(self.rho)}


class PreconditionerSection(Section):
    """`preconditioner` of pisa; a name alone stands for {kind: name}."""

    kind: Literal["identity", "hessian_diagonal", "fisher_diagonal", "hessian", "gauss_newton", "empirical_fisher"]
    probes: Annotated[int, Field(ge=1)] | None = None
    eta: Positive | None = None

    def build(self) -> Preconditioner:
        """As the method takes it."""
        eta = float("inf") if self.eta is None else self.eta
        plain: dict[str, Preconditioner] = {
            "identity": Identity(),
            "hessian": Hessian(),
            "gauss_newton": GaussNewton(),
            "empirical_fisher": EmpiricalFisher(),
            "fisher_diagonal": FisherDiagonal(eta),
            "hessian_diagonal": HessianDiagonal(self.probes, eta),
        }
        return plain[self.kind]


class AutoSection(Section):
    """`algorithm: {kind: auto}`: what suits the model; see `resolved`."""

    kind: Literal["auto"]

    def build(self) -> Method:
        """Nothing: a configuration that was checked has none of it any more."""
        raise RuntimeError("algorithm.kind auto has not been resolved")


class PISASection(MethodSection):
    """`algorithm: {kind: pisa}`."""

    kind: Literal["pisa"]
    preconditioner: PreconditionerSection = Field(default_factory=lambda: PreconditionerSection(kind="identity"))

    @field_validator("preconditioner", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    def build(self) -> Settings:
        """As the trainer takes it."""
        return PISA(
            **self.shared(),
            preconditioner=self.preconditioner.build(),
        )


def _second_moment(name: str, beta: float) -> SecondMoment:
    schemes: dict[str, SecondMoment] = {
        "adam": Adam(beta),
        "rmsprop": RMSProp(beta),
        "adagrad": AdaGrad(),
        "instantaneous": Instantaneous(),
    }
    return schemes[name]


class SISASection(MethodSection):
    """`algorithm: {kind: sisa}`."""

    kind: Literal["sisa"]
    beta: Decay = 0.999
    second_moment: Literal["adam", "rmsprop", "adagrad"] = "adam"
    eps: NotNegative = SISA().eps

    def build(self) -> Settings:
        """As the trainer takes it."""
        scheme = _second_moment(self.second_moment, self.beta)
        return SISA(
            **self.shared(),
            second_moment=scheme,
            eps=self.eps,
        )


class SISADSection(MethodSection):
    """`algorithm: {kind: sisa_d}`."""

    kind: Literal["sisa_d"]
    beta: Decay = SISAD().beta
    eps: Positive | Literal["auto"] = "auto"

    def build(self) -> Settings:
        """As the trainer takes it."""
        return SISAD(**self.shared(), beta=self.beta, eps=_set(self.eps))


def _named(value: Any) -> Any:
    """A kind alone stands for a section with nothing set."""
    return {"kind": value} if isinstance(value, str) and value not in ("paper", "frozen") else value


#: The rule of NSISA's other parameters; a kind alone stands for {kind: ...}.
Rest = Annotated[PISASection | SISASection | SISADSection, Field(discriminator="kind")]


class NSISASection(MethodSection):
    """`algorithm: {kind: nsisa}`."""

    kind: Literal["nsisa"]
    beta: Decay = 0.999
    second_moment: Literal["adam", "rmsprop", "adagrad"] = "adam"
    matrix_moment: Literal["instantaneous", "adam", "rmsprop", "adagrad"] = "instantaneous"
    eps: NotNegative = NSISA().eps
    mu: Decay = NSISA().mu
    nesterov: bool = NSISA().nesterov
    steps: Annotated[int, Field(ge=0)] = NSISA().steps
    perturbation: Decay = NSISA().perturbation
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    rest: Annotated[Rest | Literal["paper"], BeforeValidator(_named)] = SISADSection(kind="sisa_d")

    def build(self) -> Settings:
        """As the trainer takes it."""
        return NSISA(
            **self.shared(),
            rest=None if isinstance(self.rest, str) else self.rest.build(),
            precision=self.precision,
            second_moment=_second_moment(self.second_moment, self.beta),
            matrix_moment=_second_moment(self.matrix_moment, self.beta),
            eps=self.eps,
            mu=self.mu,
            nesterov=self.nesterov,
            steps=self.steps,
            perturbation=self.perturbation,
        )


Rule = Annotated[PISASection | SISASection | NSISASection | SISADSection, Field(discriminator="kind")]


class GroupsSection(Section):
    """`algorithm: {groups: ...}`: a rule for each group of parameters."""

    kind: Literal["grouped"]
    groups: dict[str, Annotated[Rule | Literal["frozen"], BeforeValidator(_named)]]
    reset_duals: bool = False
    local_steps: Annotated[int, Field(ge=1)] = 1

    def build(self) -> Method:
        """As the trainer takes it."""
        rules: dict[str, Any] = {
            name: None if isinstance(rule, str) else rule.build() for name, rule in self.groups.items()
        }
        return Groups(groups=rules, reset_duals=self.reset_duals, local_steps=self.local_steps)


Algorithm = Annotated[
    PISASection
    | SISASection
    | NSISASection
    | SISADSection
    | GroupsSection
    | SyncSection
    | FedAvgSection
    | FedProxSection
    | ScaffoldSection
    | MOONSection
    | FedAdamSection
    | AutoSection,
    Field(discriminator="kind"),
]


def resolved(algorithm: Algorithm, factory: Callable[[], nn.Module] | None) -> Algorithm:
    """The section itself, or in place of `auto` what suits a model.

    Args:
        algorithm: The section.
        factory: Makes the model; None: it is one of this library's, none of which is a transformer.
    """
    if not isinstance(algorithm, AutoSection):
        return algorithm
    if factory is not None and isinstance(default_method(factory), NSISA):
        return NSISASection(kind="nsisa")
    return SISADSection(kind="sisa_d")
