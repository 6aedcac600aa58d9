"""Growth of the penalty by 1/gamma every k0 rounds, the paper's rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

#: Growth ends here, far beyond the sigma at which w stops moving and short of float32's overflow.
LARGEST = 1e30


class SigmaSchedule(Protocol):
    """Decides the penalty round by round."""

    def grow(self, sigma: float, round_: int) -> float:
        """The penalty of a round, from that of the round before.

        Args:
            sigma: Penalty of the round before (sigma^0 before round 1).
            round_: The round about to run, from 1 (ell + 1 in the paper).
        """


@dataclass(frozen=True)
class Constant:
    """sigma stays what it is."""

    def grow(self, sigma: float, round_: int) -> float:
        """See SigmaSchedule."""
        return sigma


@dataclass(frozen=True)
class Geometric:
    """sigma is divided by gamma in every k0-th round, after its consensus and before its gradients.

    Rounds 1 .. k0-1 use sigma^0, round k0 is the first with sigma^0 / gamma. All the way that w can still go shrinks
    with every growth: small k0 and small gamma freeze it short of the optimum.

    Attributes:
        gamma: In (0, 1].
        k0: Period in rounds, >= 1.

    >>> schedule, sigma = Geometric(gamma=0.5, k0=2), 1.0
    >>> [sigma := schedule.grow(sigma, round_) for round_ in range(1, 6)]
    [1.0, 2.0, 2.0, 4.0, 4.0]
    """

    gamma: float = 0.95
    k0: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma is {self.gamma}, but it must be in (0, 1]: sigma is divided by it")
        if self.k0 < 1:
            raise ValueError(f"k0 is {self.k0}, but it must be at least 1: it is a number of rounds")

    def grow(self, sigma: float, round_: int) -> float:
        """See SigmaSchedule."""
        return min(sigma / self.gamma, LARGEST) if round_ % self.k0 == 0 else sigma
