"""The methods on one page: a local step of a shard on a block of entries, numbered as in docs/algorithm.md.

    gradient   g = grad F_i(v; B)                     at v = w, or where the step before has led              (3)
    direction  g <- what takes the gradient's place                                                 NSISA only (8)
    local      move = s (v_i - v) = -s (s I + rho Q)^-1 (pi + g)                                              (4)
    dual       pi <- pi + move                                                                                (5)
    message    N = s w + pi + sum of the moves ( = s w_i + pi),  M = s                                        (6)

A rule takes the block's dual pi, its gradient g, its moments and numbers, and returns (move, s, s + rho Q). It updates
moments in place and only reads pi and g. Every operation is rounded by itself, in the order written here, so that the
bits are the same for blocks of any size, and both for compiled code and operation by operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pisa_ray.later import torch

#: A number: a Python number where operations run one by one, an element of a tensor where they are compiled.
Number: TypeAlias = "float | torch.Tensor"

#: (m, d, numbers...) -> sqrt(m_hat); updates the second moment m of d in place.
Root: TypeAlias = "Callable[..., torch.Tensor]"

#: (move, s, s + rho Q), where s and s + rho Q are numbers or vectors; the last is in units of D where s is diagonal.
Moved: TypeAlias = "tuple[torch.Tensor, Number, Number]"


def square_root(x: torch.Tensor) -> torch.Tensor:
    """Return the root of x >= 0 by correctly rounded operations; torch.sqrt uses MKL, whose last bit varies."""
    return torch.rsqrt(x).reciprocal_()


def instantaneous(m: torch.Tensor | None, d: torch.Tensor) -> torch.Tensor:
    """Return the root of m = d*d (7a), which has no memory."""
    return d.abs()


def adagrad(m: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """Return the root of the sum m <- m + d*d (7b)."""
    return square_root(m.add_(d * d))


def average(m: torch.Tensor, d: torch.Tensor, beta: Number, rest: Number) -> torch.Tensor:
    """Return the average m <- beta m + (1 - beta) d*d (7c); rest is 1 - beta."""
    return m.mul_(beta).add_((d * d).mul_(rest))


def rmsprop(m: torch.Tensor, d: torch.Tensor, beta: Number, rest: Number) -> torch.Tensor:
    """Return the root of the average m (7c)."""
    return square_root(average(m, d, beta, rest))


def adam(m: torch.Tensor, d: torch.Tensor, beta: Number, rest: Number, correction: Number) -> torch.Tensor:
    """Return the root of m_hat = m / (1 - beta^k) (7d); correction is 1 - beta^k."""
    return square_root(average(m, d, beta, rest) / correction)


def pisa(pi: torch.Tensor, g: torch.Tensor, sigma: Number, denominator: Number) -> Moved:
    """Move by PISA, Q = q I or Diag(q) (4); the denominator is sigma + rho q."""
    return (pi + g).div_(denominator).mul_(-sigma), sigma, denominator


def sisa(
    pi: torch.Tensor, g: torch.Tensor, root: Callable[[torch.Tensor], torch.Tensor], sigma: Number, rho: Number,
    eps: Number, perturbation: Number | None = None,
) -> Moved:  # fmt: skip
    """Move by SISA, Q = Diag(sqrt(m_hat) + eps), m the second moment of d = pi + g (7).

    The matrices of NSISA follow it too, with the direction of (8) for g. There an entry of d that is exactly 0 becomes
    the perturbation, as the theory wants d != 0 (9).
    """
    d = pi + g
    denominator = root(d).add_(eps).mul_(rho).add_(sigma)
    if perturbation is not None:
        d.masked_fill_(d == 0, perturbation)
    return d.div_(denominator).mul_(-sigma), sigma, denominator


def sisa_d(
    pi: torch.Tensor, g: torch.Tensor, root: Callable[[torch.Tensor], torch.Tensor], sigma: Number, b: Number,
    eps: Number,
) -> Moved:  # fmt: skip
    """Move by SISA-D, Q = D = Diag(sqrt(v_hat) + eps), s = sigma D, v the moment of g, b = sigma/(sigma + rho) (10)."""
    s = root(g).add_(eps).mul_(sigma)
    return (pi + g).mul_(-b), s, sigma / b


def momentum(b: torch.Tensor, g: torch.Tensor, mu: float, nesterov: bool) -> torch.Tensor:
    """Update b <- mu b + g, and return what NSISA orthogonalises: g + mu b (as in the authors' code) or b (8)."""
    b.mul_(mu).add_(g)
    return g + b * mu if nesterov else b


def advance(w: torch.Tensor, pi: torch.Tensor, total: torch.Tensor, moved: Moved, first: bool) -> torch.Tensor:
    """Finish a step that is not a report's last: update the dual (5) and return v, (11), w + (sum of the moves) / s."""
    move, s, _ = moved
    pi.add_(move)
    total.copy_(move if first else move.add_(total))
    return w + move.div_(s)


def report(w: torch.Tensor, pi: torch.Tensor, total: torch.Tensor, moved: Moved, first: bool) -> torch.Tensor:
    """Finish a report's last step: update the dual (5), make `total` N (6), and return the sum of the moves."""
    move, s, _ = moved
    pi.add_(move)
    if not first:
        move.add_(total)
    torch.mul(w, s, out=total).add_(pi).add_(move)
    return move
