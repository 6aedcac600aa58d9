"""Second moments of SISA's preconditioner Q = Diag(sqrt(m)): each is a function of rules.py with its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pisa_ray.algorithm import rules
from pisa_ray.fields import Decay
from pisa_ray.kinds import Kind


class SecondMoment(Kind, family="second_moment", homes=("pisa_ray.algorithm.second_moment",)):
    """How a second moment m follows d, and its root after k steps.

    Attributes:
        root: (m, d, numbers...) -> sqrt(m_hat), [n]; updates m [n] in place and leaves d [n] alone.
        remembers: Whether it uses m.
    """

    text: ClassVar[str] = "a second moment such as Adam()"
    usual: ClassVar[str] = "adam"
    root: ClassVar[rules.Root]
    remembers: ClassVar[bool] = True

    def numbers(self, k: int) -> tuple[float, ...]:
        """Return the numbers of `root` at the k-th step, counted from 1; by default there are none."""
        return ()


@dataclass(frozen=True)
class AdaGrad(SecondMoment):
    """The sum m <- m + d*d."""

    kind: ClassVar[str] = "adagrad"
    root: ClassVar[rules.Root] = staticmethod(rules.adagrad)


@dataclass(frozen=True)
class RMSProp(SecondMoment):
    """The average m <- beta m + (1 - beta) d*d, without a correction.

    Attributes:
        beta: The decay.
    """

    kind: ClassVar[str] = "rmsprop"
    root: ClassVar[rules.Root] = staticmethod(rules.rmsprop)

    beta: Decay = 0.999

    def numbers(self, k: int) -> tuple[float, ...]:
        """Return beta and 1 - beta."""
        return self.beta, 1 - self.beta


@dataclass(frozen=True)
class Adam(RMSProp):
    """The average of RMSProp, corrected by m_hat = m / (1 - beta^k): without that the first moves are far too long."""

    kind: ClassVar[str] = "adam"
    root: ClassVar[rules.Root] = staticmethod(rules.adam)

    def numbers(self, k: int) -> tuple[float, ...]:
        """Return beta, 1 - beta and 1 - beta^k."""
        return self.beta, 1 - self.beta, 1 - self.beta**k


@dataclass(frozen=True)
class Instantaneous(SecondMoment):
    """The square m = d*d without memory, so that sqrt(m) = |d|; the authors' GPT scripts use it."""

    kind: ClassVar[str] = "instantaneous"
    root: ClassVar[rules.Root] = staticmethod(rules.instantaneous)
    remembers: ClassVar[bool] = False
