"""NSISA: SISA with orthogonalised momentum in place of the gradients of matrices (2.4)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import torch

from pisa_ray import checks
from pisa_ray.algorithm.admm import SISA, DualState, LocalStep, SISAState
from pisa_ray.algorithm.automatic import Start, choose
from pisa_ray.algorithm.layout import Layout
from pisa_ray.algorithm.message import Message
from pisa_ray.algorithm.newton_schulz import orthogonalise, shape_scale
from pisa_ray.algorithm.second_moment import SECOND_MOMENT, Instantaneous, SecondMoment

#: Most entries that go through the Newton-Schulz steps at once; about six times as many are held meanwhile.
BATCH = 1 << 22


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

    mu: float = 0.95
    nesterov: bool = True
    steps: int = 5
    matrix_moment: SecondMoment = field(default_factory=Instantaneous)
    perturbation: float = 1e-15

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.settle(
            self,
            mu=checks.number(least=0, below=1),
            nesterov=checks.flag,
            steps=checks.whole(least=0, most=1000),
            matrix_moment=SECOND_MOMENT,
            perturbation=checks.number(least=0, below=1),
        )

    @property
    def probes(self) -> bool:
        """No: its steps have a scale of their own."""
        return False

    def started(self, start: Start) -> Self:
        """Sigma 20 and rho 80, whatever the loss: a matrix moves by about 2 o / sigma, with o of unit scale."""
        return replace(self, sigma=choose(self.sigma, 5, 20, 80), rho=choose(self.rho, 8, 80, 800))

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
