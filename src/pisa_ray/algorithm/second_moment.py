"""The schemes of SISA's preconditioner Q = Diag(sqrt(m)): which function of rules.py, and its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from pisa_ray import checks
from pisa_ray.algorithm import rules


@runtime_checkable
class SecondMoment(Protocol):
    """How a second moment m follows d, and what sqrt(m) is after k of them.

    Attributes:
        root: (m, d, numbers...) -> sqrt(m_hat), [n]; brings m [n] up to date in place and leaves d [n] alone.
        remembers: Whether it uses m.
    """

    root: ClassVar[rules.Root]
    remembers: ClassVar[bool]

    def numbers(self, k: int) -> tuple[float, ...]:
        """The numbers of `root` when m has followed k d's with this one, from 1."""


@dataclass(frozen=True)
class AdaGrad:
    """Sum: m <- m + d*d."""

    root: ClassVar[rules.Root] = staticmethod(rules.adagrad)
    remembers: ClassVar[bool] = True

    def numbers(self, k: int) -> tuple[float, ...]:
        """None."""
        return ()


@dataclass(frozen=True)
class RMSProp:
    """Average: m <- beta m + (1 - beta) d*d, used as it is.

    Attributes:
        beta: Decay, in [0, 1).
    """

    beta: float = 0.999

    root: ClassVar[rules.Root] = staticmethod(rules.rmsprop)
    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.settle(self, beta=checks.number(least=0, below=1))

    def numbers(self, k: int) -> tuple[float, ...]:
        """Beta and 1 - beta."""
        return self.beta, 1 - self.beta


@dataclass(frozen=True)
class Adam(RMSProp):
    """RMSProp, then m_hat = m / (1 - beta^k): without it the first moves are far too long.

    Attributes:
        beta: Decay, in [0, 1).
    """

    root: ClassVar[rules.Root] = staticmethod(rules.adam)

    def numbers(self, k: int) -> tuple[float, ...]:
        """Beta, 1 - beta and 1 - beta^k."""
        return self.beta, 1 - self.beta, 1 - self.beta**k


@dataclass(frozen=True)
class Instantaneous:
    """No memory: m = d*d, so sqrt(m) = |d|, what the authors' shipped GPT scripts use."""

    root: ClassVar[rules.Root] = staticmethod(rules.instantaneous)
    remembers: ClassVar[bool] = False

    def numbers(self, k: int) -> tuple[float, ...]:
        """None."""
        return ()


SECOND_MOMENT = checks.instance("a second moment such as Adam()", SecondMoment)
