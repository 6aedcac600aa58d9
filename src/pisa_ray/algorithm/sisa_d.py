"""SISA-D: SISA with a diagonal penalty (7; an extension of the paper)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch

from pisa_ray import checks
from pisa_ray.algorithm.admm import DualState, LocalStep, Settings, SISAState
from pisa_ray.algorithm.automatic import AUTO, AUTOMATIC, Auto, Slope, Start, choose, number, rounded
from pisa_ray.algorithm.layout import Layout, blocks, scratch
from pisa_ray.algorithm.message import Message
from pisa_ray.algorithm.second_moment import decay, square_root

#: eps, its share of a typical entry where sigma is automatic, rho / sigma, and h / sigma.
EPS, EPS_SHARE, RATIO, SHARE = 1e-4, 0.02, 19.0, 25.0


@dataclass(frozen=True, kw_only=True)
class SISAD(Settings):
    """SISA-D: the penalty itself is diagonal, sigma D_i with D_i = sqrt(v_i) + eps (7; an extension of the paper).

    sigma_i := sigma D_i and rho_i Q_i := rho D_i, so theta = b = sigma / (sigma + rho) everywhere; growth raises sigma
    and rho together, b stays. With several local steps each updates D_i, and v = w + (pi_i - pi_i at the start) /
    (sigma D_i) by the newest; that of the last step is the message's. (With D_i fixed after the first gradient, entries
    that had none then would leap.)

    Attributes:
        beta: Decay of v_i, the bias-corrected second moment of g_i.
        eps: Added to sqrt(v_i): the smallest metric, in units of the gradient. Auto: 1e-4, or where sigma is automatic
            a fiftieth of the typical entry of the first gradients.
    """

    beta: float = 0.99
    eps: float | Auto = AUTO

    vectors: ClassVar[int] = 2
    power_steps: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.settle(self, beta=checks.number(least=0, below=1), eps=checks.number(above=0, most=1e30) | AUTOMATIC)

    @property
    def _eps(self) -> float:
        return EPS if isinstance(self.eps, Auto) else self.eps

    def _eps_for(self, typical: float) -> float:
        both = isinstance(self.eps, Auto) and isinstance(self.sigma, Auto)
        return EPS_SHARE * typical if both else self._eps

    @property
    def probes(self) -> bool:
        """Whether sigma is to be found."""
        return isinstance(self.sigma, Auto)

    def metric(self, slope: Slope) -> torch.Tensor:
        """The mean of D_i after the first gradients."""
        return slope.size + self._eps_for(slope.typical)

    def started(self, start: Start) -> Self:
        """Rho = 19 sigma, so b = 1/20, and sigma = h / 25, so 2 sigma + 4 rho is about 3 h, also with a given rho.

        Found on networks and on least squares, whose results are flat over a factor of two on both sides.
        """
        best = start.h / SHARE
        if not isinstance(self.rho, Auto):
            best = max(best, (start.h / SHARE * (2 + 4 * RATIO) - 4 * self.rho) / 2)
        sigma = choose(self.sigma, best / 3, best, 3 * best)
        return replace(
            self,
            sigma=sigma,
            rho=choose(self.rho, sigma, RATIO * sigma, 100 * sigma),
            eps=rounded(self._eps_for(start.typical)),
        )

    def first_consensus(self, w: torch.Tensor) -> torch.Tensor:
        """w^1 = w^init: no shard has a metric yet (2.5)."""
        return w.clone()

    def initial_state(self, w: torch.Tensor, layout: Layout) -> SISAState:
        """See Method."""
        return SISAState(dual=torch.zeros_like(w), moment=torch.zeros_like(w))

    def _take(self, local: LocalStep, shard: DualState, message: Message) -> float | None:
        assert isinstance(shard, SISAState)  # noqa: S101  (for the type checker)
        task, gradient = local.task, local.gradient()
        b = number(self.sigma) / (number(self.sigma) + number(self.rho))
        correction = 1 - self.beta**local.number
        room = scratch(task.w)
        for part in blocks(task.w):
            pi, g, penalty = shard.dual[part], gradient[part], message.M[part]
            move = room[: len(pi)]
            decay(shard.moment[part], g, self.beta, move)
            torch.div(shard.moment[part], correction, out=penalty)
            square_root(penalty, out=penalty).add_(self._eps).mul_(task.sigma)  # sigma D
            torch.add(pi, g, out=move).mul_(-b)
            local.finish(part, pi, move, penalty, message.N[part])
        return None if task.gap is None else 1 - b
