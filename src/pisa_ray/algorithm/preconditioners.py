"""Preconditioners Q of PISA, (4) of docs/algorithm.md, and the solve for those that are products.

A preconditioner is any callable that is given the Curvature of a shard's mini-batch at w and returns Q as one of
- a number q: Q = q I;
- a vector q [p] of entries >= 0: Q = Diag(q);
- a function v -> Q v, symmetric: the solve is by conjugate gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pisa_ray import checks
from pisa_ray.algorithm.curvature import Curvature

Product = Callable[[torch.Tensor], torch.Tensor]
Q = float | torch.Tensor | Product
Preconditioner = Callable[[Curvature], Q]

#: Most parameters for which an exact diagonal is computed.
EXACT_LIMIT = 5_000

#: What a preconditioner must be, and an upper bound of its entries.
PRECONDITIONER = checks.instance("a preconditioner such as HessianDiagonal(probes=1)", Callable)
_ETA = checks.number(above=0, infinite=True)


@dataclass(frozen=True)
class Identity:
    """Q = q I; q = 0 is plain inexact ADMM.

    Attributes:
        q: The multiple, >= 0.
    """

    q: float = 1.0

    def __post_init__(self) -> None:
        checks.settle(self, q=checks.number(least=0))

    def __call__(self, curvature: Curvature) -> Q:
        """Q, whatever the curvature."""
        return self.q


@dataclass(frozen=True)
class HessianDiagonal:
    """Q = Diag |diag(grad^2 F)|, clipped at eta: exact for small models, by Hutchinson's estimate for large ones.

    Attributes:
        probes: Number of random sign vectors z in the mean of z * (H z); None: exact, p Hessian-vector products.
        eta: Upper bound of the entries.
    """

    probes: int | None = None
    eta: float = float("inf")

    def __post_init__(self) -> None:
        checks.settle(self, probes=checks.whole(least=1, most=10**6) | checks.nothing, eta=_ETA)

    def __call__(self, curvature: Curvature) -> Q:
        """Q's entries, [p]."""
        q = torch.zeros_like(curvature.w, requires_grad=False)
        if self.probes is None:
            if q.numel() > EXACT_LIMIT:
                raise ValueError(
                    f"HessianDiagonal(): {q.numel()} parameters mean as many products a step; use probes=1 or more"
                )
            unit = torch.zeros_like(q)
            for k in range(q.numel()):
                unit[k] = 1
                q[k] = curvature.hessian(unit)[k]
                unit[k] = 0
        else:
            if curvature.generator is None:
                raise ValueError(
                    "HessianDiagonal(probes=...) needs a Curvature with a generator, for repeatable probes"
                )
            for _ in range(self.probes):
                sign = torch.randint(2, q.shape, generator=curvature.generator, device=q.device).to(q) * 2 - 1
                q += sign * curvature.hessian(sign)
            q /= self.probes
        return q.abs_().clamp_(max=self.eta)


@dataclass(frozen=True)
class FisherDiagonal:
    """Q = Diag((1/b) sum_j g_j^2), the diagonal empirical Fisher matrix, clipped at eta.

    Attributes:
        eta: Upper bound of the entries.
    """

    eta: float = float("inf")

    def __post_init__(self) -> None:
        checks.settle(self, eta=_ETA)

    def __call__(self, curvature: Curvature) -> Q:
        """Q's entries, [p]."""
        q = torch.zeros_like(curvature.w, requires_grad=False)
        for gradient in curvature.sample_gradients():
            q += gradient * gradient
        return (q / curvature.samples).clamp_(max=self.eta)


@dataclass(frozen=True)
class EmpiricalFisher:
    """Q = (1/b) sum_j g_j g_j^T, for small models and batches: it keeps all b sample gradients."""

    def __call__(self, curvature: Curvature) -> Q:
        """Q as a product."""
        G = torch.stack(list(curvature.sample_gradients()))
        return lambda v: G.T @ (G @ v) / len(G)


@dataclass(frozen=True)
class Hessian:
    """Q = grad^2 F, for small models; the solve ends at the first direction of negative curvature."""

    def __call__(self, curvature: Curvature) -> Q:
        """Q as a product."""
        return curvature.hessian


@dataclass(frozen=True)
class GaussNewton:
    """Q = J^T (d2 loss) J >= 0, for small models."""

    def __call__(self, curvature: Curvature) -> Q:
        """Q as a product."""
        return curvature.gauss_newton


def conjugate_gradients(product: Product, d: torch.Tensor, sigma: float, rho: float, most: int = 500) -> torch.Tensor:
    """Solve (sigma I + rho Q) x = d, to 100 rounding units of d.

    At the first direction in which Q shows negative curvature the solve ends with a step that counts it as 0: with a
    non-convex loss the move becomes plain, never uphill.

    Args:
        product: v -> Q v, symmetric.
        d: The direction pi + g, [p].
        sigma: Penalty of this round, > 0.
        rho: Weight of the preconditioned proximal term, >= 0.
        most: Products at most; if they do not suffice, there is a warning and the best x so far.

    Returns:
        x = w - w_i, [p].
    """
    limit = 100 * torch.finfo(d.dtype).eps * d.norm()
    x, residual = torch.zeros_like(d), d.clone()
    direction, square = residual.clone(), residual.dot(residual)
    for _ in range(most):
        if square.sqrt() <= limit:
            return x
        q_direction = product(direction)
        curvature = direction.dot(q_direction)
        length = direction.dot(direction)
        x += square / (sigma * length + rho * curvature.clamp(min=0)) * direction
        if curvature < 0:
            return x
        residual -= square / (sigma * length + rho * curvature) * (sigma * direction + rho * q_direction)
        square, previous = residual.dot(residual), square
        direction = residual + square / previous * direction
    warnings.warn(
        f"conjugate gradients left {float(square.sqrt() / d.norm()):.1e} of the right-hand side after {most} products: "
        "raise sigma or lower rho",
        stacklevel=2,
    )
    return x
