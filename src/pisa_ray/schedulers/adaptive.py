"""Growth by what rounds have shown: residuals, the Lagrangian, or a loss that has stalled.

None of these is robust by itself: with noisy gradients, schedules that look at residuals let sigma run away. So each
has a bound on the total growth. None helps against a first sigma that is far too small.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt

from pisa_ray.fields import Count, Decay, NotNegative, Positive
from pisa_ray.schedulers.schedule import Memory, Seen, SigmaSchedule


@dataclass(frozen=True, kw_only=True)
class Adaptive(SigmaSchedule, ABC):
    """A schedule that multiplies sigma by a factor when a round shows that it should grow.

    Attributes:
        factor: The factor of one growth.
        most: The largest total growth.
        every: The rounds from one look to the next; a look at more than the loss costs a gradient.
    """

    planned: ClassVar[bool] = False

    factor: Annotated[float, Gt(1)] = 2.0
    most: Annotated[float, Ge(1)] = 1000.0
    every: Count = 10

    @abstractmethod
    def wants(self, sigma: float, seen: Seen, memory: dict[str, float]) -> bool:
        """Return whether sigma should grow; an implementation may change the memory."""

    def looks(self, round_: int) -> bool:
        """See SigmaSchedule."""
        return round_ % self.every == 0

    def adapt(self, sigma: float, round_: int, seen: Seen, memory: Memory) -> tuple[float, Memory]:
        """See SigmaSchedule."""
        if not self.looks(round_):
            return sigma, memory
        now = dict(memory)
        grown = now.get("grown", 1.0)
        if self.wants(sigma, seen, now) and grown < self.most:
            factor = min(self.factor, self.most / grown)
            sigma, now["grown"] = sigma * factor, grown * factor
        return sigma, now


@dataclass(frozen=True, kw_only=True)
class ResidualBalancing(Adaptive):
    """Growth while the primal residual times sigma is many times the consensus move: shards disagree while w rests.

    Attributes:
        ratio: How many times the consensus move sigma times the primal residual must be for growth.
    """

    kind: ClassVar[str] = "residual_balancing"
    measures: ClassVar[bool] = True

    ratio: Positive = 10.0

    def wants(self, sigma: float, seen: Seen, memory: dict[str, float]) -> bool:
        """See Adaptive."""
        return seen.primal is not None and seen.move is not None and sigma * seen.primal > self.ratio * seen.move


@dataclass(frozen=True, kw_only=True)
class LagrangianDescent(Adaptive):
    """Growth when the augmented Lagrangian has risen since the last look, which a sigma that is large enough prevents.

    Attributes:
        tolerance: The share of its size by which the Lagrangian must have risen for growth.
    """

    kind: ClassVar[str] = "lagrangian_descent"
    measures: ClassVar[bool] = True

    tolerance: NotNegative = 0.01

    def wants(self, sigma: float, seen: Seen, memory: dict[str, float]) -> bool:
        """See Adaptive."""
        if seen.lagrangian is None:
            return False
        last = memory.get("lagrangian")
        memory["lagrangian"] = seen.lagrangian
        return last is not None and seen.lagrangian > last + self.tolerance * abs(last)


@dataclass(frozen=True, kw_only=True)
class Plateau(Adaptive):
    """Growth when the smoothed training loss stalls, the counterpart of torch's ReduceLROnPlateau.

    Attributes:
        patience: The number of looks without a better loss after which sigma grows and the count begins anew.
        threshold: The share by which a better loss must be below the best one.
        smoothing: The decay of the exponential mean of the loss.
    """

    kind: ClassVar[str] = "plateau"

    every: Count = 1
    patience: Count = 20
    threshold: NotNegative = 1e-3
    smoothing: Decay = 0.9

    def wants(self, sigma: float, seen: Seen, memory: dict[str, float]) -> bool:
        """See Adaptive."""
        if seen.loss != seen.loss:  # NaN: no shard reported in the round
            return False
        smooth = memory.get("smooth", seen.loss)
        smooth = memory["smooth"] = self.smoothing * smooth + (1 - self.smoothing) * seen.loss
        best = memory.get("best")
        if best is None or smooth < best - self.threshold * abs(best):
            memory["best"], memory["stalled"] = smooth, 0.0
            return False
        memory["stalled"] += 1
        if memory["stalled"] < self.patience:
            return False
        memory["stalled"] = 0.0
        return True
