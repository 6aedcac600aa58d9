"""PISA and SISA: their numbers, and the rule that each part of w follows.

    consensus  w = sum_i alpha_i (sigma w_i + pi_i) / sum_i alpha_i (sigma + lambda)   (2)     in message.py
    growth     sigma <- sigma / gamma, every k0 rounds                                        in pisa_ray.schedulers
    local step gradient, direction, local and dual line, message                (3) to (6)     in rules.py

A shard keeps only pi_i and the moments of Q_i: with `move` = pi_i' - pi_i = sigma (w_i - w), the consensus needs just
N_i = sigma w_i + pi_i' = sigma w + pi_i' + move. docs/algorithm.md numbers the lines, derives this, and defines several
local steps in a report (`local_steps`, an extension of the paper).

Zhou et al., "Preconditioned inexact stochastic ADMM for deep models", Nat Mach Intell 8, 234-245 (2026).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from annotated_types import Ge, Gt, Le

from pisa_ray.algorithm.auto import AUTO, Auto, Automatic, number
from pisa_ray.algorithm.layout import Layout, Slot
from pisa_ray.algorithm.message import Message, Penalties, consensus
from pisa_ray.algorithm.method import Ask, Batch, Method, Steps, Task, Update
from pisa_ray.algorithm.parts import DualState, LocalStep, Part, Plan, step
from pisa_ray.algorithm.preconditioners import AnyPreconditioner, Identity, Preconditioner, conjugate_gradients
from pisa_ray.algorithm.second_moment import Adam, SecondMoment
from pisa_ray.algorithm.state import ShardState
from pisa_ray.checks import shown
from pisa_ray.errors import ConfigError
from pisa_ray.fields import Decay, Key, annotated, rule
from pisa_ray.later import torch

#: A little below the largest number of float32.
LARGEST = 1e30

COUPLED = (
    "preconditioner gives a product, which couples all parameters, but its rule moves a group of them: use one whose Q "
    "is a number or a diagonal."
)

#: (path, rule, sigma in units of the method's sigma, parameters); see Part.
Member = tuple[str, "AdmmRule", float, Sequence[Slot]]


def prefixed(path: str, rules: Mapping[str, AdmmRule]) -> dict[str, AdmmRule]:
    """Return rules by a longer path."""
    return {path + name: rule for name, rule in rules.items()}


def shared_settings(rule: AdmmRule, name: str) -> None:
    """Refuse numbers in the rule of a group that belong to the whole method.

    Raises:
        ConfigError: If the rule has local_steps or reset_duals.
    """
    if rule.local_steps != 1 or rule.reset_duals:
        raise ConfigError(
            f"{name} has local_steps or reset_duals, but these hold for all parameters: set them for the whole method."
        )


class Admm(Method, ABC):
    """A method with duals, whose parameters follow one rule or several: w has parts, each with a rule.

    Attributes:
        reset_duals: Whether duals begin at 0 in every report, so that shards remember nothing (for ablations).
        local_steps: E, the local steps of a report, each with its own mini-batch and gradient.
    """

    duals: ClassVar[bool] = True
    remembers: ClassVar[bool] = True
    weighs: ClassVar[bool] = True
    remedy: ClassVar[str] = "raising algorithm.sigma or algorithm.rho"

    reset_duals: bool
    local_steps: int

    @abstractmethod
    def members(self, layout: Layout) -> Sequence[Member]:
        """Return the rules with the parameters of a layout, or of a part of one, that each moves."""

    @property
    def is_complete(self) -> bool:
        """Whether all numbers are set."""
        return all(rule.is_set for rule in self.rules().values())

    @cached_property
    def _plans(self) -> dict[int, Plan]:
        return {}

    def plan(self, layout: Layout) -> Plan:
        """Return the parts of w, which are made once for each layout."""
        known = self._plans.get(id(layout))
        if known is None or known.layout is not layout:
            known = self._plans[id(layout)] = Plan.of(layout, self.members(layout))
        return known

    def check(self, layout: Layout) -> None:
        """Refuse parameters that no rule can move.

        Raises:
            ConfigError: If there are such parameters.
        """
        for part in self.plan(layout).parts:
            part.rule.fits(sum(slot.size for slot in part.slots))

    def moved(self, layout: Layout) -> dict[str, list[str]]:
        """See Method."""
        parts = self.plan(layout).parts
        return {part.path: [slot.name for slot in part.slots] for part in parts} if len(self.rules()) > 1 else {}

    def asks(self) -> Sequence[Ask]:
        """See Method; the requests are those of the rules."""
        return [ask for rule in self.rules().values() for ask in rule.own_asks(alone=rule is self)]

    def frozen(self, layout: Layout) -> Collection[str]:
        """Return the names of the parameters that are not trained; only Groups has any.

        Args:
            layout: The layout of all parameters that could be trained.
        """
        return ()

    def penalties(self, layout: Layout) -> Penalties:
        """See Method."""
        return self.plan(layout).penalties

    def first_consensus(self, w: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Return w^1 from w_i = w^init and pi_i = 0; with lambda > 0 it is smaller than w^init, once sigma is set."""
        w = w.clone()
        for part in self.plan(layout).parts:
            share = part.rule.first_share()
            for piece in part.pieces if share != 1 else ():
                w[piece.entries] *= share
        return w

    def shrinkage(self, w: torch.Tensor, layout: Layout) -> torch.Tensor:
        """See Method."""
        out = torch.empty_like(w)
        for part in self.plan(layout).parts:
            for piece in part.pieces:
                torch.mul(w[piece.entries], part.rule.lam, out=out[piece.entries])
        return out

    def gradients(self, rows: int, batch: int) -> int:
        """Return E, the number of local steps."""
        return self.local_steps

    def initial_state(self, w: torch.Tensor, layout: Layout) -> DualState:
        """See Method."""
        return self.plan(layout).state(w)

    def step(self, shard: ShardState, task: Task, message: Message) -> float | None:
        """See Method; the momentum is that of the last local step."""
        assert isinstance(shard, DualState)  # noqa: S101  (for the type checker)
        if self.reset_duals:
            shard.dual.zero_()
        return step(self.plan(task.layout), shard, task, message)

    def update(self, update: Update, memory: torch.Tensor) -> None:
        """Apply the consensus line to each part."""
        total, whole = update.total, update.layout.size
        for part in self.plan(update.layout).parts:
            for piece in part.pieces:
                at = piece.entries
                M = total.M[at if total.M.numel() == whole else piece.penalty]
                said = Message(total.N[at], M, total.buffers, total.weight, total.norms)
                consensus(said, part.rule.lam, out=update.out[at])


@dataclass(frozen=True, kw_only=True)
class AdmmRule(Admm):
    """A rule with its numbers; as a method, it moves all parameters.

    Attributes:
        sigma: sigma^0, the penalty of the first rounds; 1/sigma acts like a learning rate. "auto": the automatic start
            finds it before round 1. Beside OnlineK0 a number is a hint.
        rho: The weight of the preconditioned proximal term; "auto" as for sigma.
        lam: Weight decay, the lambda of the regulariser (lambda/2) ||w||^2. It shrinks w by lambda / (sigma + lambda) a
            round, which float32 loses below about 1e-6.
    """

    sigma: Annotated[float, Gt(0), Le(LARGEST)] | Automatic = AUTO
    rho: Annotated[float, Ge(0), Le(LARGEST)] | Automatic = AUTO
    lam: Annotated[float, Ge(0), Le(LARGEST), Key("lambda")] = 0.0
    reset_duals: bool = False
    local_steps: Steps = 1

    momenta: ClassVar[bool] = False
    diagonal: ClassVar[bool] = False

    #: The default sigma schedule after an automatic start, as a section of a file.
    usual_schedule: ClassVar[Mapping[str, Any]] = {"kind": "matched", "growth": 10.0}

    @abstractmethod
    def take(self, local: LocalStep, part: Part) -> float | None:
        """Take a local step on a part of w; return the sum of theta if diagnostics need it, else None."""

    def fits(self, size: int) -> None:
        """Refuse a number of entries that the rule cannot move; by default it can move any.

        Raises:
            ConfigError: If there are too many.
        """

    def own_asks(self, *, alone: bool) -> Sequence[Ask]:
        """Return the rule's requests to a mini-batch beside gradients.

        Args:
            alone: Whether the rule moves all parameters.
        """
        return ()

    @property
    def moments(self) -> bool:
        """Whether the rule keeps a second moment."""
        return True

    @property
    def is_set(self) -> bool:
        """Whether the rule's own numbers are set."""
        return not isinstance(self.sigma, Auto) and not isinstance(self.rho, Auto)

    @property
    def vectors(self) -> int:
        """See Admm."""
        return 2 if self.diagonal else 1

    def members(self, layout: Layout) -> Sequence[Member]:
        """Return the rule itself with all parameters."""
        return [("", self, 1.0, layout.slots)]

    def rules(self) -> Mapping[str, AdmmRule]:
        """Return the rule itself."""
        return {"": self}

    def with_numbers(self, found: Mapping[str, Any]) -> Self:
        """See Admm."""
        if unknown := set(found) - {f.name for f in fields(self)}:
            raise KeyError(min(unknown))
        return replace(self, **found) if found else self

    def first_share(self) -> float:
        """Return the factor of the first consensus on the initial weights."""
        return 1.0 if isinstance(self.sigma, Auto) or not self.lam else self.sigma / (self.sigma + self.lam)


@dataclass(frozen=True, kw_only=True)
class PISA(AdmmRule):
    """PISA with any preconditioner.

    Attributes:
        preconditioner: The matrix Q, in Python also as any function of a Curvature.
    """

    kind: ClassVar[str] = "pisa"

    preconditioner: AnyPreconditioner = field(default_factory=Identity)

    def fits(self, size: int) -> None:
        """See AdmmRule."""
        if isinstance(self.preconditioner, Preconditioner):
            self.preconditioner.fits(size)

    def own_asks(self, *, alone: bool) -> Sequence[Ask]:
        """See AdmmRule."""
        its = self.preconditioner
        trial = its.trial() if isinstance(its, Preconditioner) else its
        if trial is None:
            return ()

        def ask(batch: Batch, w: torch.Tensor) -> None:
            Q = trial(batch.curvature(w))
            if not callable(Q):
                if not isinstance(Q, int | float) and getattr(Q, "shape", None) not in (torch.Size(), w.shape):
                    raise ConfigError(
                        f"preconditioner gives {shown(Q)}, but it must give a number, a vector of {len(w)} entries, or "
                        "a function v -> Q v."
                    )
                return
            if not alone:
                raise ConfigError(COUPLED)
            Q(torch.ones_like(w))

        return [
            Ask(
                ask,
                "algorithm.preconditioner needs second derivatives, or gradients of single rows, which model or loss "
                "do not give",
                "use another algorithm, such as SISA",
            )
        ]

    @property
    def moments(self) -> bool:
        """False: PISA keeps no second moment."""
        return False

    def take(self, local: LocalStep, part: Part) -> float | None:
        """See AdmmRule."""
        sigma, rho = local.sigma(part), number(self.rho)
        Q = self.preconditioner(local.batch.curvature(local.v))
        if callable(Q):  # Q couples all coordinates, so there is one solve for all
            if len(local.task.layout.slots) != len(part.slots):
                raise ConfigError(COUPLED)
            move = conjugate_gradients(Q, local.shard.dual + local.g, sigma, rho).mul_(-sigma)
            local.apply(part, "given", (sigma,), vector=move)
            return None
        if isinstance(Q, torch.Tensor):
            return local.apply(part, "pisa_diagonal", (sigma,), vector=sigma + rho * Q)
        return local.apply(part, "pisa", (sigma, sigma + rho * Q))


@dataclass(frozen=True, kw_only=True)
class SISA(AdmmRule):
    """SISA, with Q = Diag(sqrt(m)) and m a second moment of d = pi + g.

    Attributes:
        second_moment: The second moment of d = pi + g; the default is bias-corrected.
        eps: A number added to the root of the second moment, and so multiplied by rho.
        beta: In a file, the decay of the second moments (for nsisa also of the matrices) that are given by their kind
            alone or left out.
    """

    kind: ClassVar[str] = "sisa"
    beside: ClassVar[Mapping[str, Any]] = {"kind": str, "beta": Decay}

    second_moment: SecondMoment = field(default_factory=Adam)
    eps: Annotated[float, Ge(0), Le(LARGEST)] = 1e-8

    @classmethod
    def spelled(cls, values: dict[str, Any], path: str) -> dict[str, Any]:
        """See Options; `beta` beside the name of a second moment is its decay."""
        if "beta" not in values:
            return values
        beta, used = {"beta": rule(Decay)(f"{path}.beta", values.pop("beta"))}, False
        for name in ("second_moment", "matrix_moment"):
            given = values.get(name, "adam") if name in annotated(cls) else None
            if given in ("adam", "rmsprop"):
                values[name], used = {"kind": given, **beta}, True
        if not used:
            raise ConfigError(
                f"{path}.beta is {beta['beta']:g}, but no second moment is given by its name alone and has one: leave "
                "it out, or write it in the section of the moment."
            )
        return values

    @property
    def moments(self) -> bool:
        """Whether the second moment remembers anything."""
        return self.second_moment.remembers

    def take(self, local: LocalStep, part: Part) -> float | None:
        """See AdmmRule."""
        numbers = local.sigma(part), number(self.rho), self.eps
        return local.apply(part, "sisa", numbers, self.second_moment.root, self.second_moment.numbers(local.number))
