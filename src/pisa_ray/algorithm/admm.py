"""PISA, SISA, NSISA and SISA-D: what one shard does in one iteration.

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
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from pisa_ray.algorithm.layout import Layout, blocks, scratch
from pisa_ray.algorithm.message import Message, consensus
from pisa_ray.algorithm.method import Batch, Task, Update
from pisa_ray.algorithm.newton_schulz import orthogonalise, shape_scale
from pisa_ray.algorithm.preconditioners import Identity, Preconditioner, conjugate_gradients
from pisa_ray.algorithm.second_moment import Adam, Instantaneous, SecondMoment, decay, square_root
from pisa_ray.algorithm.state import ShardState

#: Most entries that go through the Newton-Schulz steps at once; about six times as many are held meanwhile.
BATCH = 1 << 22


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
        sigma: sigma^0, the penalty of the first iteration, > 0; 1/sigma acts like a learning rate.
        rho: Weight of the preconditioned proximal term, >= 0.
        lam: lambda of the regulariser (lambda/2) ||w||^2, >= 0. It shrinks w by lambda / (sigma + lambda) a round;
            below about 1e-6 that is lost in float32.
        reset_duals: Forget pi_i after every round: no memory of the shards is left (for ablations).
        local_steps: E, steps a report, each with a mini-batch of its own; >= 1.
    """

    sigma: float = 1.0
    rho: float = 1.0
    lam: float = 0.0
    reset_duals: bool = False
    local_steps: int = 1

    vectors: ClassVar[int] = 1
    duals: ClassVar[bool] = True
    remembers: ClassVar[bool] = True
    proposes: ClassVar[bool] = True
    remedy: ClassVar[str] = "raising algorithm.sigma or algorithm.rho"

    def __post_init__(self) -> None:
        for name, value, rule, good in [
            ("sigma", self.sigma, "> 0", 0 < self.sigma < float("inf")),
            ("rho", self.rho, ">= 0", 0 <= self.rho < float("inf")),
            ("lambda", self.lam, ">= 0", 0 <= self.lam < float("inf")),
        ]:
            if not good:
                raise ValueError(f"{name} is {value}, but it must be a finite number {rule}")
        if not isinstance(self.local_steps, int) or self.local_steps < 1:
            raise ValueError(
                f"local_steps is {self.local_steps}, but a report needs a whole number of local steps, at least 1"
            )

    def first_consensus(self, w: torch.Tensor) -> torch.Tensor:
        """w^1 from w_i = w^init and pi_i = 0: with lambda > 0 the initial weights shrink at once."""
        return w * (self.sigma / (self.sigma + self.lam)) if self.lam else w.clone()

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

    def initial_state(self, w: torch.Tensor, layout: Layout) -> ShardState:
        """See Method."""
        return DualState(dual=torch.zeros_like(w))

    def _take(self, local: LocalStep, shard: DualState, message: Message) -> float | None:
        task, g = local.task, local.gradient()
        Q = self.preconditioner(local.batch.curvature(local.v))
        message.M.fill_(task.sigma)
        if callable(Q):  # it couples all coordinates: one solve
            move = conjugate_gradients(Q, shard.dual + g, task.sigma, self.rho).mul_(-task.sigma)
            local.finish(slice(0, len(move)), shard.dual, move, task.sigma, message.N)
            return None
        room = scratch(task.w)
        for part in blocks(task.w):
            pi, q = shard.dual[part], Q[part] if isinstance(Q, torch.Tensor) else Q
            move = torch.add(pi, g[part], out=room[: len(pi)])
            move.div_(task.sigma + self.rho * q).mul_(-task.sigma)
            local.finish(part, pi, move, task.sigma, message.N[part])
        return None if task.gap is None else float((self.rho * torch.as_tensor(Q) / (task.sigma + self.rho * Q)).mean())


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

    rho: float = 200.0
    second_moment: SecondMoment = field(default_factory=Adam)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eps < float("inf"):
            raise ValueError(f"eps is {self.eps}, but it must be a finite number >= 0")

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
        theta, task = 0.0, local.task
        d_room, q_room = scratch(task.w[span]), scratch(task.w[span])
        for block in blocks(task.w[span]):
            part = slice(span.start + block.start, span.start + block.stop)
            pi, m = shard.dual[part], shard.moment[part]
            d, q = d_room[: len(pi)], q_room[: len(pi)]
            torch.add(pi, g[part], out=d)
            scheme.root(m, d, local.number, out=q)
            q.add_(self.eps).mul_(self.rho).add_(task.sigma)  # the local denominator sigma + rho q
            if task.gap is not None:
                theta += float((task.sigma / q).sum(dtype=torch.float64))
            if perturbation:
                d.masked_fill_(d == 0, perturbation)
            move = d.div_(q).mul_(-task.sigma)
            local.finish(part, pi, move, task.sigma, message.N[part])
        return theta


@dataclass(kw_only=True)
class NSISAState(SISAState):
    """SISAState with b_i, the momentum of the matrices, [p] (unused where a parameter is no matrix)."""

    momentum: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class NSISA(SISA):
    """NSISA: SISA on orthogonalised momentum for matrices, plain SISA for the other parameters (2.4).

    Attributes:
        sigma: As in SISA; here moves are about 2 o / (sigma + rho |d|), o of unit scale.
        mu: Momentum, in [0, 1).
        nesterov: Orthogonalise g + mu b (the authors' code) instead of b.
        steps: Newton-Schulz steps.
        matrix_moment: Second moment of the matrices; the default, |d| itself, is what the authors' shipped code does.
        perturbation: eps_z; where d is exactly 0 it becomes eps_z^k at local step k, as the theory wants d != 0.
    """

    sigma: float = 80.0
    rho: float = 100.0
    mu: float = 0.95
    nesterov: bool = True
    steps: int = 5
    matrix_moment: SecondMoment = field(default_factory=Instantaneous)
    perturbation: float = 1e-15

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.mu < 1:
            raise ValueError(f"mu is {self.mu}, but it must be in [0, 1): it is the share of the momentum that is kept")
        if self.steps < 0 or not 0 <= self.perturbation < 1:
            raise ValueError(
                f"steps is {self.steps} and perturbation {self.perturbation}: use steps >= 0, 0 <= eps_z < 1"
            )

    def initial_state(self, w: torch.Tensor, layout: Layout) -> NSISAState:
        """See Method."""
        return NSISAState(dual=torch.zeros_like(w), moment=torch.zeros_like(w), momentum=torch.zeros_like(w))

    def _take(self, local: LocalStep, shard: DualState, message: Message) -> float | None:
        assert isinstance(shard, NSISAState)  # noqa: S101  (for the type checker)
        task, g = local.task, local.gradient()
        self._orthogonalise(shard.momentum, task.layout, g)
        theta, perturbation = 0.0, self.perturbation**local.number
        for slot in task.layout.slots:
            if slot.matrix:
                theta += self._update(slot.part, local, shard, g, message, self.matrix_moment, perturbation)
            else:
                theta += self._update(slot.part, local, shard, g, message, self.second_moment)
        message.M.fill_(task.sigma)
        return None if task.gap is None else 1 - theta / max(task.layout.size, 1)

    def _orthogonalise(self, momentum: torch.Tensor, layout: Layout, gradient: torch.Tensor) -> None:
        """Update b <- mu b + g, then overwrite the matrices of g by o; equal shapes go through the steps in batches."""
        by_shape: dict[tuple[int, int], list[slice]] = {}
        for slot in layout.slots:
            if slot.matrix:
                by_shape.setdefault(slot.matrix_shape, []).append(slot.part)
                b, g = momentum[slot.part], gradient[slot.part]
                b.mul_(self.mu).add_(g)
                g.copy_(g + b * self.mu if self.nesterov else b)
        for shape, parts in by_shape.items():
            batch = max(1, BATCH // (shape[0] * shape[1]))  # set by the layout, so that bits do not depend on memory
            for some in (parts[k : k + batch] for k in range(0, len(parts), batch)):
                o = orthogonalise(torch.stack([gradient[part].view(shape) for part in some]), self.steps)
                for part, matrix in zip(some, o, strict=True):
                    torch.mul(matrix.reshape(-1), shape_scale(*shape), out=gradient[part])


@dataclass(frozen=True, kw_only=True)
class SISAD(Settings):
    """SISA-D: the penalty itself is diagonal, sigma D_i with D_i = sqrt(v_i) + eps (7; an extension of the paper).

    sigma_i := sigma D_i and rho_i Q_i := rho D_i, so theta = b = sigma / (sigma + rho) everywhere; growth raises sigma
    and rho together, b stays. With several local steps each updates D_i, and v = w + (pi_i - pi_i at the start) /
    (sigma D_i) by the newest; that of the last step is the message's. (With D_i fixed after the first gradient, entries
    that had none then would leap.)

    Attributes:
        beta: Decay of v_i, the bias-corrected second moment of g_i.
        eps: Added to sqrt(v_i): the smallest metric, in units of the gradient.
    """

    sigma: float = 60.0
    rho: float = 540.0
    beta: float = 0.99
    eps: float = 1e-4

    vectors: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta is {self.beta}, but it must be in [0, 1): it is the share of the old moment kept")
        if not 0 < self.eps < float("inf"):
            raise ValueError(f"eps is {self.eps}, but it must be > 0: an entry without gradient needs a penalty too")

    def first_consensus(self, w: torch.Tensor) -> torch.Tensor:
        """w^1 = w^init: no shard has a metric yet (2.5)."""
        return w.clone()

    def initial_state(self, w: torch.Tensor, layout: Layout) -> SISAState:
        """See Method."""
        return SISAState(dual=torch.zeros_like(w), moment=torch.zeros_like(w))

    def _take(self, local: LocalStep, shard: DualState, message: Message) -> float | None:
        assert isinstance(shard, SISAState)  # noqa: S101  (for the type checker)
        task, gradient = local.task, local.gradient()
        b = self.sigma / (self.sigma + self.rho)
        correction = 1 - self.beta**local.number
        room = scratch(task.w)
        for part in blocks(task.w):
            pi, g, penalty = shard.dual[part], gradient[part], message.M[part]
            move = room[: len(pi)]
            decay(shard.moment[part], g, self.beta, move)
            torch.div(shard.moment[part], correction, out=penalty)
            square_root(penalty, out=penalty).add_(self.eps).mul_(task.sigma)  # sigma D
            torch.add(pi, g, out=move).mul_(-b)
            local.finish(part, pi, move, penalty, message.N[part])
        return None if task.gap is None else 1 - b
