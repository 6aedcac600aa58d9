"""The methods on one page: one local step of a shard, on a block of entries; numbers are those of docs/algorithm.md.

    gradient   g = grad F_i(v; B)                     at v = w, or where the step before has led              (3)
    direction  g <- what takes the gradient's place                                                 NSISA only (8)
    local      move = s (v_i - v) = -s (s I + rho Q)^-1 (pi + g)                                              (4)
    dual       pi <- pi + move                                                                                (5)
    message    N = s w + pi + sum of the moves ( = s w_i + pi),  M = s                                        (6)

A rule takes the block's dual pi, its gradient g, its moments and numbers, and returns (move, s, s + rho Q). Moments are
brought up to date in place; pi and g are only read. Every operation is rounded by itself, in the order written here, so
the bits are the same for blocks of any size, and compiled into one pass over memory as well as operation by operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pisa_ray.later import torch

#: A number: of Python where operations run one by one, an element of a tensor of numbers where they are compiled.
Number: TypeAlias = "float | torch.Tensor"

#: (m, d, numbers...) -> sqrt(m_hat); brings the second moment m of d up to date in place.
Root: TypeAlias = "Callable[..., torch.Tensor]"

#: (move, s, s + rho Q), s and s + rho Q numbers or vectors; in units of s where s is diagonal.
Moved: TypeAlias = "tuple[torch.Tensor, Number, Number]"


def square_root(x: torch.Tensor) -> torch.Tensor:
    """The root of x >= 0, correctly rounded at each operation; torch.sqrt goes through MKL, whose last bit varies."""
    return torch.rsqrt(x).reciprocal_()


def instantaneous(m: torch.Tensor | None, d: torch.Tensor) -> torch.Tensor:
    """No memory: m = d*d (7a)."""
    return d.abs()


def adagrad(m: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """Sum: m <- m + d*d (7b)."""
    return square_root(m.add_(d * d))


def average(m: torch.Tensor, d: torch.Tensor, beta: Number, rest: Number) -> torch.Tensor:
    """Average: m <- beta m + (1 - beta) d*d (7c); rest is 1 - beta."""
    return m.mul_(beta).add_((d * d).mul_(rest))


def rmsprop(m: torch.Tensor, d: torch.Tensor, beta: Number, rest: Number) -> torch.Tensor:
    """The average's root (7c)."""
    return square_root(average(m, d, beta, rest))


def adam(m: torch.Tensor, d: torch.Tensor, beta: Number, rest: Number, correction: Number) -> torch.Tensor:
    """The root of m_hat = m / (1 - beta^k) (7d); correction is 1 - beta^k."""
    return square_root(average(m, d, beta, rest) / correction)


def pisa(pi: torch.Tensor, g: torch.Tensor, sigma: Number, denominator: Number) -> Moved:
    """PISA, Q = q I or Diag(q) (4); the denominator is sigma + rho q."""
    return (pi + g).div_(denominator).mul_(-sigma), sigma, denominator


def sisa(
    pi: torch.Tensor, g: torch.Tensor, root: Callable[[torch.Tensor], torch.Tensor], sigma: Number, rho: Number,
    eps: Number, perturbation: Number | None = None,
) -> Moved:  # fmt: skip
    """SISA, Q = Diag(sqrt(m_hat) + eps), m the second moment of d = pi + g (7).

    NSISA's matrices follow it too, g being the direction of (8); there an entry of d that is exactly 0 becomes the
    perturbation, as the theory wants d != 0 (9).
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
    """SISA-D, ours: Q = D = Diag(sqrt(v_hat) + eps), s = sigma D, v the moment of g, b = sigma / (sigma + rho) (10)."""
    s = root(g).add_(eps).mul_(sigma)
    return (pi + g).mul_(-b), s, sigma / b


def momentum(b: torch.Tensor, g: torch.Tensor, mu: float, nesterov: bool) -> torch.Tensor:
    """What NSISA orthogonalises: b <- mu b + g, then g + mu b (the authors' code) or b itself (8)."""
    b.mul_(mu).add_(g)
    return g + b * mu if nesterov else b


def advance(w: torch.Tensor, pi: torch.Tensor, total: torch.Tensor, moved: Moved, first: bool) -> torch.Tensor:
    """A step that is not a report's last: the dual (5); the next v = w + (sum of the moves) / s is returned."""
    move, s, _ = moved
    pi.add_(move)
    total.copy_(move if first else move.add_(total))
    return w + move.div_(s)


def report(w: torch.Tensor, pi: torch.Tensor, total: torch.Tensor, moved: Moved, first: bool) -> torch.Tensor:
    """A report's last step: the dual (5); the sum of the moves is returned, and `total` becomes N (6)."""
    move, s, _ = moved
    pi.add_(move)
    if not first:
        move.add_(total)
    torch.mul(w, s, out=total).add_(pi).add_(move)
    return move
