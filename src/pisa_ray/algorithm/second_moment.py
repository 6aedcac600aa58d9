"""The schemes of SISA's preconditioner Q = Diag(sqrt(m)): which function of rules.py, and its numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pisa_ray.algorithm import rules
from pisa_ray.options import Decay, Kind


class SecondMoment(Kind, ABC, family="second_moment", homes=("pisa_ray.algorithm.second_moment",)):
    """How a second moment m follows d, and what sqrt(m) is after k of them.

    Attributes:
        root: (m, d, numbers...) -> sqrt(m_hat), [n]; brings m [n] up to date in place and leaves d [n] alone.
        remembers: Whether it uses m.
    """

    text: ClassVar[str] = "a second moment such as Adam()"
    usual: ClassVar[str] = "adam"
    root: ClassVar[rules.Root]
    remembers: ClassVar[bool] = True

    @abstractmethod
    def numbers(self, k: int) -> tuple[float, ...]:
        """The numbers of `root` when m has followed k d's with this one, from 1."""


@dataclass(frozen=True)
class AdaGrad(SecondMoment):
    """Sum: m <- m + d*d."""

    kind: ClassVar[str] = "adagrad"
    root: ClassVar[rules.Root] = staticmethod(rules.adagrad)

    def numbers(self, k: int) -> tuple[float, ...]:
        """None."""
        return ()


@dataclass(frozen=True)
class RMSProp(SecondMoment):
    """Average: m <- beta m + (1 - beta) d*d, used as it is.

    Attributes:
        beta: Decay, in [0, 1).
    """

    kind: ClassVar[str] = "rmsprop"
    root: ClassVar[rules.Root] = staticmethod(rules.rmsprop)

    beta: Decay = 0.999

    def numbers(self, k: int) -> tuple[float, ...]:
        """Beta and 1 - beta."""
        return self.beta, 1 - self.beta


@dataclass(frozen=True)
class Adam(RMSProp):
    """RMSProp, then m_hat = m / (1 - beta^k): without it the first moves are far too long.

    Attributes:
        beta: Decay, in [0, 1).
    """

    kind: ClassVar[str] = "adam"
    root: ClassVar[rules.Root] = staticmethod(rules.adam)

    def numbers(self, k: int) -> tuple[float, ...]:
        """Beta, 1 - beta and 1 - beta^k."""
        return self.beta, 1 - self.beta, 1 - self.beta**k


@dataclass(frozen=True)
class Instantaneous(SecondMoment):
    """No memory: m = d*d, so sqrt(m) = |d|, what the authors' shipped GPT scripts use."""

    kind: ClassVar[str] = "instantaneous"
    root: ClassVar[rules.Root] = staticmethod(rules.instantaneous)
    remembers: ClassVar[bool] = False

    def numbers(self, k: int) -> tuple[float, ...]:
        """None."""
        return ()
