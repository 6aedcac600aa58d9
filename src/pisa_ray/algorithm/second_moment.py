"""Second moments m of d = pi + g, the schemes of SISA's preconditioner Q = Diag(sqrt(m))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from pisa_ray import checks


@runtime_checkable
class SecondMoment(Protocol):
    """How m follows d, and what sqrt(m) is after k of them."""

    def root(self, m: torch.Tensor, d: torch.Tensor, k: int, out: torch.Tensor) -> torch.Tensor:
        """Update m in place with d and write sqrt(m_hat) to `out`.

        Args:
            m: The moment, [n].
            d: The direction pi + g (NSISA: pi + o), [n].
            k: How many d's m has followed with this one, from 1.
            out: Where the root goes, [n]; not m or d.

        Returns:
            `out`.
        """


@dataclass(frozen=True)
class AdaGrad:
    """Sum: m <- m + d*d."""

    def root(self, m: torch.Tensor, d: torch.Tensor, k: int, out: torch.Tensor) -> torch.Tensor:
        """See SecondMoment.root."""
        torch.mul(d, d, out=out)
        return square_root(m.add_(out), out=out)


@dataclass(frozen=True)
class RMSProp:
    """Average: m <- beta m + (1 - beta) d*d, used as it is.

    Attributes:
        beta: Decay, in [0, 1).
    """

    beta: float = 0.999

    def __post_init__(self) -> None:
        checks.settle(self, beta=checks.number(least=0, below=1))

    def root(self, m: torch.Tensor, d: torch.Tensor, k: int, out: torch.Tensor) -> torch.Tensor:
        """See SecondMoment.root."""
        return square_root(decay(m, d, self.beta, out), out=out)


@dataclass(frozen=True)
class Adam:
    """RMSProp, then m_hat = m / (1 - beta^k): without it the first moves are far too long.

    Attributes:
        beta: Decay, in [0, 1).
    """

    beta: float = 0.999

    def __post_init__(self) -> None:
        checks.settle(self, beta=checks.number(least=0, below=1))

    def root(self, m: torch.Tensor, d: torch.Tensor, k: int, out: torch.Tensor) -> torch.Tensor:
        """See SecondMoment.root."""
        torch.div(decay(m, d, self.beta, out), 1 - self.beta**k, out=out)
        return square_root(out, out=out)


@dataclass(frozen=True)
class Instantaneous:
    """No memory: m = d*d, so sqrt(m) = |d|, what the authors' shipped GPT scripts use."""

    def root(self, m: torch.Tensor, d: torch.Tensor, k: int, out: torch.Tensor) -> torch.Tensor:
        """See SecondMoment.root; m is left alone."""
        return torch.abs(d, out=out)


def decay(m: torch.Tensor, d: torch.Tensor, beta: float, scratch: torch.Tensor) -> torch.Tensor:
    """Update m <- beta m + (1 - beta) d*d in place, each operation rounded by itself (no fused forms)."""
    torch.mul(d, d, out=scratch).mul_(1 - beta)
    return m.mul_(beta).add_(scratch)


def square_root(x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """The square root, by a correctly rounded root and two divisions, so with the same bits on every processor.

    torch.sqrt goes through MKL on CPUs, whose last bit depends on who made the processor (and it takes longer).

    Args:
        x: Numbers >= 0.
        out: Where the roots go; may be x.

    Returns:
        `out`.
    """
    return torch.rsqrt(x, out=out).reciprocal_()


SECOND_MOMENT = checks.instance("a second moment such as Adam()", SecondMoment)
