"""The parts of the configuration file that choose the method: algorithm and preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from pisa_ray.cli.config_baselines import (
    FedAdamSection,
    FedAvgSection,
    FedProxSection,
    MOONSection,
    ScaffoldSection,
    SyncSection,
)
from pisa_ray.cli.config_section import OF_CLASS, ClassSection, Decay, NotNegative, Positive, Section

if TYPE_CHECKING:
    from torch import nn

    from pisa_ray.algorithm import Auto, Method, Preconditioner, SecondMoment


class HintSection(Section):
    """`{hint: 3}` in place of a number."""

    hint: Positive

    def build(self) -> Auto:
        """As the method takes it."""
        from pisa_ray.algorithm import Auto

        return Auto(self.hint)


#: A number, or what the automatic start makes of it.
Automatic = Positive | HintSection | Literal["auto"]


def _set(value: float | HintSection | str) -> float | Auto:
    from pisa_ray.algorithm import AUTO

    return value.build() if isinstance(value, HintSection) else AUTO if isinstance(value, str) else value


class MethodSection(ClassSection):
    """What all ADMM methods share."""

    sigma: Automatic = "auto"
    rho: NotNegative | HintSection | Literal["auto"] = "auto"
    lam: NotNegative = Field(default=OF_CLASS, alias="lambda")
    reset_duals: bool = OF_CLASS
    local_steps: Annotated[int, Field(ge=1)] = OF_CLASS

    def given(self) -> dict[str, Any]:
        """See ClassSection."""
        given = super().given()
        return given | {name: _set(given[name]) for name in ("sigma", "rho", "eps") if name in given}


class PreconditionerSection(Section):
    """`preconditioner` of pisa; a name alone stands for {kind: name}."""

    kind: Literal["identity", "hessian_diagonal", "fisher_diagonal", "hessian", "gauss_newton", "empirical_fisher"]
    probes: Annotated[int, Field(ge=1)] | None = None
    eta: Positive | None = None

    def build(self) -> Preconditioner:
        """As the method takes it."""
        from pisa_ray.algorithm import (
            EmpiricalFisher,
            FisherDiagonal,
            GaussNewton,
            Hessian,
            HessianDiagonal,
            Identity,
        )

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

    classes: ClassVar = {"pisa": "PISA"}

    kind: Literal["pisa"]
    preconditioner: PreconditionerSection = Field(default_factory=lambda: PreconditionerSection(kind="identity"))

    @field_validator("preconditioner", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    def given(self) -> dict[str, Any]:
        """See ClassSection."""
        return super().given() | {"preconditioner": self.preconditioner.build()}


def _second_moment(name: str, beta: dict[str, float]) -> SecondMoment:
    from pisa_ray.algorithm import AdaGrad, Adam, Instantaneous, RMSProp

    schemes: dict[str, Any] = {"adam": Adam, "rmsprop": RMSProp, "adagrad": AdaGrad, "instantaneous": Instantaneous}
    decays = name in ("adam", "rmsprop")
    scheme: SecondMoment = schemes[name](**beta if decays else {})
    return scheme


class MomentSection(MethodSection):
    """What SISA and NSISA share: second moments by name, whose decay is beta."""

    def given(self) -> dict[str, Any]:
        """See ClassSection."""
        given = super().given()
        beta = {"beta": given.pop("beta")} if "beta" in given else {}
        moments = [name for name in ("second_moment", "matrix_moment") if hasattr(self, name)]
        return given | {name: _second_moment(getattr(self, name), beta) for name in moments}

    def default(self, name: str) -> Any:
        """See ClassSection."""
        from pisa_ray.algorithm import Adam

        return Adam.beta if name == "beta" else super().default(name)


class SISASection(MomentSection):
    """`algorithm: {kind: sisa}`."""

    classes: ClassVar = {"sisa": "SISA"}

    kind: Literal["sisa"]
    beta: Decay = OF_CLASS
    second_moment: Literal["adam", "rmsprop", "adagrad"] = "adam"
    eps: NotNegative = OF_CLASS


class SISADSection(MethodSection):
    """`algorithm: {kind: sisa_d}`."""

    classes: ClassVar = {"sisa_d": "SISAD"}

    kind: Literal["sisa_d"]
    beta: Decay = OF_CLASS
    eps: Positive | Literal["auto"] = "auto"


def _named(value: Any) -> Any:
    """A kind alone stands for a section with nothing set."""
    return {"kind": value} if isinstance(value, str) and value not in ("paper", "frozen") else value


#: The rule of NSISA's other parameters; a kind alone stands for {kind: ...}.
Rest = Annotated[PISASection | SISASection | SISADSection, Field(discriminator="kind")]


class NSISASection(MomentSection):
    """`algorithm: {kind: nsisa}`."""

    classes: ClassVar = {"nsisa": "NSISA"}

    kind: Literal["nsisa"]
    beta: Decay = OF_CLASS
    second_moment: Literal["adam", "rmsprop", "adagrad"] = "adam"
    matrix_moment: Literal["instantaneous", "adam", "rmsprop", "adagrad"] = "instantaneous"
    eps: NotNegative = OF_CLASS
    mu: Decay = OF_CLASS
    nesterov: bool = OF_CLASS
    steps: Annotated[int, Field(ge=0)] = OF_CLASS
    perturbation: Decay = OF_CLASS
    precision: Literal["auto", "float32", "bfloat16"] = OF_CLASS
    rest: Annotated[Rest | Literal["paper"], BeforeValidator(_named)] = SISADSection(kind="sisa_d")

    def given(self) -> dict[str, Any]:
        """See ClassSection."""
        return super().given() | {"rest": None if isinstance(self.rest, str) else self.rest.build()}


Rule = Annotated[PISASection | SISASection | NSISASection | SISADSection, Field(discriminator="kind")]


class GroupsSection(ClassSection):
    """`algorithm: {groups: ...}`: a rule for each group of parameters."""

    classes: ClassVar = {"grouped": "Groups"}

    kind: Literal["grouped"]
    groups: dict[str, Annotated[Rule | Literal["frozen"], BeforeValidator(_named)]]
    reset_duals: bool = OF_CLASS
    local_steps: Annotated[int, Field(ge=1)] = OF_CLASS

    def given(self) -> dict[str, Any]:
        """See ClassSection."""
        rules = {name: None if isinstance(rule, str) else rule.build() for name, rule in self.groups.items()}
        return super().given() | {"groups": rules}


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
    if factory is not None:
        from pisa_ray.algorithm import NSISA
        from pisa_ray.trainer.start import default_method

        if isinstance(default_method(factory), NSISA):
            return NSISASection(kind="nsisa")
    return SISADSection(kind="sisa_d")
