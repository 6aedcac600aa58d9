"""PISA and SISA: what one shard does in one iteration; NSISA and SISA-D, beside, differ in the local line.

    consensus  w = sum_i alpha_i (sigma w_i + pi_i) / (sum_i alpha_i sigma + lambda)          in message.py
    growth     sigma <- sigma / gamma, every k0 iterations                                    in pisa_ray.schedulers
    gradient   g_i = grad F_i(w; B_i), on a mini-batch, at the consensus point w              the task's
    local      w_i = w - (sigma I + rho Q_i)^-1 (pi_i + g_i)
    dual       pi_i <- pi_i + sigma (w_i - w)

Only pi_i (and what Q_i remembers) is kept: with `move` = pi_i' - pi_i = sigma (w_i - w), the consensus needs just
N_i = sigma w_i + pi_i' = sigma w + pi_i' + move, identity (c). Message arithmetic uses plain products and sums, each
rounded by itself, so that its bits do not depend on vector widths or alignment.

Several local steps (`local_steps` = E > 1, an extension of the paper). From v_0 = w, for e = 1..E, with a mini-batch
each, g_e = grad F_i(v_{e-1}; B_e) and the proximal term centred at v_{e-1}:

    v_e = argmin_x <g_e + pi_i, x> + (sigma/2) ||x - w||^2 + (rho/2) (x - v_{e-1})' Q_e (x - v_{e-1})
        = v_{e-1} - (sigma I + rho Q_e)^-1 d_e,    d_e = pi_i + sigma (v_{e-1} - w) + g_e

then w_i = v_E, and the dual line once. (Put x = v_{e-1} + u into 0 = g_e + pi_i + sigma (x - w) + rho Q_e u.) Now
pi_i + sigma (v_e - w) is what the dual would be if the report ended at step e; kept in place of pi_i, it makes every
step the same two lines as above, with the gradient taken at v_{e-1}:

    local      v_e = v_{e-1} - (sigma I + rho Q_e)^-1 (pi_i + g_e)
    dual       pi_i <- pi_i + sigma (v_e - v_{e-1})

and the message is as before, `move` being the sum of the steps' moves. So a dual averages E gradients a report, and
second moments and momenta are those of E d's; bias corrections count local steps. Identity (b) holds at each step, (c)
as it stands; (a) becomes pi_i' = -g_E - rho Q_E (v_E - v_{E-1}). With many steps v_E tends to the exact minimiser of
F_i(x) + <pi_i, x> + (sigma/2) ||x - w||^2. At w_i = w, pi_i = -grad F_i(w) nothing moves, as with one step. Where
curvature is far below sigma an exchange moves w by the mean gradient / sigma, whatever E: with E steps sigma may be
smaller by about E, at the same sigma + rho.

Zhou et al., "Preconditioned inexact stochastic ADMM for deep models", Nat Mach Intell 8, 234-245 (2026).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch

from pisa_ray import checks
from pisa_ray.algorithm.automatic import AUTO, AUTOMATIC, Auto, Slope, Start, choose, number
from pisa_ray.algorithm.layout import Layout, blocks, scratch
from pisa_ray.algorithm.message import Message, consensus
from pisa_ray.algorithm.method import STEPS, Batch, MemoryOf, Task, Update
from pisa_ray.algorithm.preconditioners import PRECONDITIONER, Identity, Preconditioner, conjugate_gradients
from pisa_ray.algorithm.second_moment import SECOND_MOMENT, Adam, SecondMoment
from pisa_ray.algorithm.state import ShardState

#: From here on rho stabilises by itself where Q is a curvature.
CURVED = 0.75


@dataclass(frozen=True)
class LocalStep:
    """One of the local steps of a report.

    Attributes:
        task: The report's.
        batch: Its mini-batch.
        v: Where it begins, [p]; only read. The first begins at task.w itself.
        to: Where it puts the point it leads to, [p]; None for the last, which writes the message.
        number: How many the shard has taken with this one, from 1: k in every bias correction.
    """

    task: Task
    batch: Batch
    v: torch.Tensor
    to: torch.Tensor | None
    number: int

    def gradient(self) -> torch.Tensor:
        """g, [p]; the next gradient overwrites it."""
        return self.batch.gradient(self.v)

    def finish(
        self, part: slice, pi: torch.Tensor, move: torch.Tensor, s: float | torch.Tensor, N: torch.Tensor
    ) -> None:
        """Dual line on one block, and the next point or the message.

        Args:
            part: The block.
            pi: The dual there; changed in place.
            move: s (v_e - v_{e-1}) there, the change of pi; overwritten.
            s: The penalty there.
            N: The message's numerator there; before the last step it holds the sum of the moves.
        """
        w = self.task.w
        pi.add_(move)
        if self.v is not w:
            move.add_(N)
        if self.to is not None:
            N.copy_(move)
            torch.add(w[part], move.div_(s), out=self.to[part])
            return
        write(self.task, part, pi, move, s, N)


def write(
    task: Task, part: slice, pi: torch.Tensor, move: torch.Tensor, s: float | torch.Tensor, N: torch.Tensor
) -> None:
    """The message on one block, given the new dual pi', move = pi' - pi and the penalty s."""
    torch.mul(task.w[part], s, out=N).add_(pi).add_(move)
    if task.gap is not None:
        torch.div(move, s, out=task.gap[part])


@dataclass(frozen=True, kw_only=True)
class Settings(ABC):
    """What all ADMM methods share.

    Attributes:
        sigma: sigma^0, the penalty of the first iteration, > 0; 1/sigma acts like a learning rate. Auto: what the
            automatic start finds.
        rho: Weight of the preconditioned proximal term, >= 0, or Auto.
        lam: lambda of the regulariser (lambda/2) ||w||^2, >= 0. It shrinks w by lambda / (sigma + lambda) a round;
            below about 1e-6 that is lost in float32.
        reset_duals: Forget pi_i after every round: no memory of the shards is left (for ablations).
        local_steps: E, steps a report, each with a mini-batch of its own; >= 1.
    """

    sigma: float | Auto = AUTO
    rho: float | Auto = AUTO
    lam: float = 0.0
    reset_duals: bool = False
    local_steps: int = 1

    vectors: ClassVar[int] = 1
    duals: ClassVar[bool] = True
    remembers: ClassVar[bool] = True
    proposes: ClassVar[bool] = True
    remedy: ClassVar[str] = "raising algorithm.sigma or algorithm.rho"
    memory_of: ClassVar[MemoryOf | None] = None
    power_steps: ClassVar[int] = 8  # of the automatic start

    def __post_init__(self) -> None:
        checks.settle(
            self,
            sigma=checks.number(above=0, most=1e30) | AUTOMATIC,  # beyond that float32 has no numbers
            rho=checks.number(least=0, most=1e30) | AUTOMATIC,
            lam=checks.number(least=0, most=1e30),
            reset_duals=checks.flag,
            local_steps=STEPS,
        )

    @property
    def is_complete(self) -> bool:
        """Whether sigma and rho are set."""
        return not isinstance(self.sigma, Auto) and not isinstance(self.rho, Auto)

    @property
    def probes(self) -> bool:
        """Whether the start needs to know the curvature."""
        return not self.is_complete

    def metric(self, slope: Slope) -> torch.Tensor:
        """What the penalty is multiplied by, [p]; here 1. The start measures curvature in it."""
        return torch.ones_like(slope.mean)

    @abstractmethod
    def started(self, start: Start) -> Self:
        """The same with its numbers set."""

    def _at(self, h: float, rho: float, q: float) -> Self:
        """Sigma about h, and above what stability asks for, (3 h - 4 rho q) / 2; rho where it is not given."""
        rho = choose(self.rho, rho / 10, rho, 10 * rho)
        least = max(0.3 * h, (3 * h - 4 * rho * q) / 2)
        return replace(self, sigma=choose(self.sigma, least, max(h, 4 / 3 * least), max(3 * h, least)), rho=rho)

    def first_consensus(self, w: torch.Tensor) -> torch.Tensor:
        """w^1 from w_i = w^init and pi_i = 0: with lambda > 0 the initial weights shrink at once, once sigma is set."""
        if isinstance(self.sigma, Auto) or not self.lam:
            return w.clone()
        return w * (self.sigma / (self.sigma + self.lam))

    def gradients(self, rows: int, batch: int) -> int:
        """E."""
        return self.local_steps

    def initial_memory(self, layout: Layout) -> torch.Tensor:
        """None: duals and moments live with the shards."""
        return torch.empty(0)

    def update(self, update: Update, memory: torch.Tensor) -> None:
        """The consensus line."""
        consensus(update.total, self.lam, out=update.out)

    def step(self, shard: ShardState, task: Task, message: Message) -> float | None:
        """See Method; the momentum is the last local step's."""
        assert isinstance(shard, DualState)  # noqa: S101  (for the type checker)
        momentum = None
        for local in self._begin(shard, task):
            momentum = self._take(local, shard, message)
        return momentum

    def _begin(self, shard: DualState, task: Task) -> Iterator[LocalStep]:
        """A report: its local steps, each with a mini-batch that is drawn when the step before is done."""
        taken = shard.reports * task.steps
        shard.reports += 1
        if self.reset_duals:
            shard.dual.zero_()
        room = torch.empty_like(task.w) if task.steps > 1 else task.w
        for e in range(task.steps):
            last = e == task.steps - 1
            yield LocalStep(task, task.draw(), room if e else task.w, None if last else room, taken + e + 1)

    @abstractmethod
    def _take(self, local: LocalStep, shard: DualState, message: Message) -> float | None:
        """A local step: its local and dual line; returns what `step` does."""


@dataclass(kw_only=True)
class DualState(ShardState):
    """What all methods of this family keep.

    Attributes:
        dual: pi_i, the multiplier of w_i = w, [p].
    """

    dual: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class PISA(Settings):
    """PISA with a preconditioner slot (2.1, 2.2).

    Attributes:
        preconditioner: Any callable from Curvature to Q; see pisa_ray.algorithm.preconditioners.
    """

    preconditioner: Preconditioner = field(default_factory=Identity)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.settle(self, preconditioner=PRECONDITIONER)

    def started(self, start: Start) -> Self:
        """Sigma = rho = h, so that 2 sigma + 4 rho q is twice what stability asks for; without rho sigma = 2 h.

        Q of the other preconditioners is a curvature itself, so that rho is 1, and enough from 3/4 on.
        """
        if isinstance(self.preconditioner, Identity):
            return self._at(start.h, start.h, 1.0)
        return self._at(start.h, 1.0, start.h if isinstance(self.rho, Auto) or self.rho >= CURVED else 0.0)

    def initial_state(self, w: torch.Tensor, layout: Layout) -> ShardState:
        """See Method."""
        return DualState(dual=torch.zeros_like(w))

    def _take(self, local: LocalStep, shard: DualState, message: Message) -> float | None:
        task, g, rho = local.task, local.gradient(), number(self.rho)
        Q = self.preconditioner(local.batch.curvature(local.v))
        message.M.fill_(task.sigma)
        if callable(Q):  # it couples all coordinates: one solve
            move = conjugate_gradients(Q, shard.dual + g, task.sigma, rho).mul_(-task.sigma)
            local.finish(slice(0, len(move)), shard.dual, move, task.sigma, message.N)
            return None
        room = scratch(task.w)
        for part in blocks(task.w):
            pi, q = shard.dual[part], Q[part] if isinstance(Q, torch.Tensor) else Q
            move = torch.add(pi, g[part], out=room[: len(pi)])
            move.div_(task.sigma + rho * q).mul_(-task.sigma)
            local.finish(part, pi, move, task.sigma, message.N[part])
        return None if task.gap is None else float((rho * torch.as_tensor(Q) / (task.sigma + rho * Q)).mean())


@dataclass(kw_only=True)
class SISAState(DualState):
    """DualState with m_i, the second moment, [p]."""

    moment: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class SISA(Settings):
    """SISA: Q = Diag(sqrt(m)), m a second moment of d = pi + g (2.3).

    Attributes:
        second_moment: Adam (bias-corrected, the default), RMSProp or AdaGrad.
        eps: Added to sqrt(m), so multiplied by rho; >= 0.
    """

    second_moment: SecondMoment = field(default_factory=Adam)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.settle(self, second_moment=SECOND_MOMENT, eps=checks.number(least=0, most=1e30))

    def started(self, start: Start) -> Self:
        """Sigma at h, and rho q as large for an entry of typical size; see PISA."""
        return self._at(start.h, start.h / start.typical, start.typical)

    def initial_state(self, w: torch.Tensor, layout: Layout) -> SISAState:
        """See Method."""
        return SISAState(dual=torch.zeros_like(w), moment=torch.zeros_like(w))

    def _take(self, local: LocalStep, shard: DualState, message: Message) -> float | None:
        assert isinstance(shard, SISAState)  # noqa: S101  (for the type checker)
        task, g = local.task, local.gradient()
        theta = self._update(slice(0, task.layout.size), local, shard, g, message, self.second_moment)
        message.M.fill_(task.sigma)
        return None if task.gap is None else 1 - theta / max(task.layout.size, 1)

    def _update(
        self,
        span: slice,
        local: LocalStep,
        shard: SISAState,
        g: torch.Tensor,
        message: Message,
        scheme: SecondMoment,
        perturbation: float = 0.0,
    ) -> float:
        """Local and dual line on a span of entries, block by block; returns the sum of theta when diagnosing."""
        theta, task, rho = 0.0, local.task, number(self.rho)
        d_room, q_room = scratch(task.w[span]), scratch(task.w[span])
        for block in blocks(task.w[span]):
            part = slice(span.start + block.start, span.start + block.stop)
            pi, m = shard.dual[part], shard.moment[part]
            d, q = d_room[: len(pi)], q_room[: len(pi)]
            torch.add(pi, g[part], out=d)
            scheme.root(m, d, local.number, out=q)
            q.add_(self.eps).mul_(rho).add_(task.sigma)  # the local denominator sigma + rho q
            if task.gap is not None:
                theta += float((task.sigma / q).sum(dtype=torch.float64))
            if perturbation:
                d.masked_fill_(d == 0, perturbation)
            move = d.div_(q).mul_(-task.sigma)
            local.finish(part, pi, move, task.sigma, message.N[part])
        return theta
