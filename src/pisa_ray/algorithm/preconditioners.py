"""Preconditioners Q of PISA, (4) of docs/algorithm.md, and the solve where Q is given by its products.

A preconditioner is any callable that takes the Curvature of a shard's mini-batch at w and returns Q as one of
- a number q: Q = q I;
- a vector q [p] of entries >= 0: Q = Diag(q);
- a function v -> Q v, symmetric: the solve is by conjugate gradients.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, TypeAlias

from annotated_types import Ge, Le

from pisa_ray import checks
from pisa_ray.algorithm.curvature import Curvature
from pisa_ray.errors import ConfigError
from pisa_ray.fields import NotNegative
from pisa_ray.kinds import Kind
from pisa_ray.later import torch

Product: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
Q: TypeAlias = "float | torch.Tensor | Product"

#: The largest number of parameters for which an exact diagonal is computed.
EXACT_LIMIT = 5_000

#: Upper bound of the entries of Q.
Eta = Annotated[float, checks.number(above=0, infinite=True) | checks.nothing.then(lambda nothing: float("inf"))]


class Preconditioner(Kind, ABC, family="preconditioner", homes=("pisa_ray.algorithm.preconditioners",)):
    """A kind that computes Q from the curvature of the loss; PISA takes any other such function, too."""

    usual: ClassVar[str] = "identity"

    #: Whether Q is a curvature of the loss.
    curved: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, curvature: Curvature) -> Q:
        """Return Q at the point of a curvature."""

    def trial(self) -> Preconditioner | None:
        """Return a cheaper preconditioner to try on the model before a run, or None if there is nothing to try."""
        return self

    def fits(self, size: int) -> None:
        """Refuse a number of parameters that is too large.

        Raises:
            ConfigError: If it is too large.
        """


#: The type of PISA's option.
AnyPreconditioner = Annotated[
    Preconditioner | Callable[[Curvature], Any],
    checks.instance("a preconditioner such as HessianDiagonal(probes=1)", Callable),
]


@dataclass(frozen=True)
class Identity(Preconditioner):
    """The identity, Q = q I; q = 0 is plain inexact ADMM.

    Attributes:
        q: The multiple of the identity.
    """

    kind: ClassVar[str] = "identity"
    curved: ClassVar[bool] = False

    q: NotNegative = 1.0

    def trial(self) -> None:
        """See Preconditioner."""

    def __call__(self, curvature: Curvature) -> Q:
        """Return q for any curvature."""
        return self.q


@dataclass(frozen=True)
class HessianDiagonal(Preconditioner):
    """Q = Diag |diag(grad^2 F)|, clipped at eta; exact for small models, Hutchinson's estimate for large ones.

    Attributes:
        probes: The number of random sign vectors z in the mean of z * (H z), in every step. None: the exact diagonal,
            which takes as many products as there are parameters and is refused above 5,000.
        eta: The upper bound of the entries; None: there is none.
    """

    kind: ClassVar[str] = "hessian_diagonal"

    probes: Annotated[int, Ge(1), Le(10**6)] | None = None
    eta: Eta = float("inf")

    def trial(self) -> Preconditioner:
        """See Preconditioner; one product is enough, as all are alike."""
        return replace(self, probes=1) if self.probes is None else self

    def fits(self, size: int) -> None:
        """See Preconditioner."""
        if self.probes is None and size > EXACT_LIMIT:
            raise ConfigError(
                f"algorithm.preconditioner.probes is None, but the exact diagonal of {size} parameters takes as many "
                "products a step: use 1 or more."
            )

    def __call__(self, curvature: Curvature) -> Q:
        """Return the entries of Q, [p]."""
        q = torch.zeros_like(curvature.w, requires_grad=False)
        if self.probes is None:
            self.fits(q.numel())
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
class FisherDiagonal(Preconditioner):
    """Q = Diag((1/b) sum_j g_j^2), the diagonal empirical Fisher matrix, clipped at eta.

    Attributes:
        eta: The upper bound of the entries; None: there is none.
    """

    kind: ClassVar[str] = "fisher_diagonal"

    eta: Eta = float("inf")

    def __call__(self, curvature: Curvature) -> Q:
        """Return the entries of Q, [p]."""
        q = torch.zeros_like(curvature.w, requires_grad=False)
        for gradient in curvature.sample_gradients():
            q += gradient * gradient
        return (q / curvature.samples).clamp_(max=self.eta)


@dataclass(frozen=True)
class EmpiricalFisher(Preconditioner):
    """Q = (1/b) sum_j g_j g_j^T, for small models and batches: it keeps all b sample gradients."""

    kind: ClassVar[str] = "empirical_fisher"

    def __call__(self, curvature: Curvature) -> Q:
        """Return Q as the function v -> Q v."""
        G = torch.stack(list(curvature.sample_gradients()))
        return lambda v: G.T @ (G @ v) / len(G)


@dataclass(frozen=True)
class Hessian(Preconditioner):
    """Q = grad^2 F, for small models; the solve ends at the first direction of negative curvature."""

    kind: ClassVar[str] = "hessian"

    def __call__(self, curvature: Curvature) -> Q:
        """Return Q as the function v -> Q v."""
        return curvature.hessian


@dataclass(frozen=True)
class GaussNewton(Preconditioner):
    """Q = J^T (d2 loss) J >= 0, for small models."""

    kind: ClassVar[str] = "gauss_newton"

    def __call__(self, curvature: Curvature) -> Q:
        """Return Q as the function v -> Q v."""
        return curvature.gauss_newton


def conjugate_gradients(product: Product, d: torch.Tensor, sigma: float, rho: float, most: int = 500) -> torch.Tensor:
    """Solve (sigma I + rho Q) x = d, to 100 rounding units of d.

    At the first direction of negative curvature the solve ends with a step that counts this curvature as 0, so with a
    non-convex loss the move never goes uphill.

    Args:
        product: v -> Q v, symmetric.
        d: The direction pi + g, [p].
        sigma: The penalty of the round, > 0.
        rho: The weight of the preconditioned proximal term, >= 0.
        most: The largest number of products; if they do not suffice, there is a warning and the best x so far.

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
