"""Growth that is known beforehand: none, the paper's, a total growth, and the shapes of learning rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le

from pisa_ray.errors import ConfigError
from pisa_ray.fields import Share
from pisa_ray.later import torch
from pisa_ray.schedulers.schedule import NOTHING, Memory, Rounds, SigmaSchedule

#: The largest sigma, far beyond the one at which w stops moving, and below the overflow of float32.
LARGEST = 1e30

#: The smallest factor of a learning rate, for shapes that end in 0.
SMALLEST = 1e-6


@dataclass(frozen=True)
class Constant(SigmaSchedule):
    """A constant sigma."""

    kind: ClassVar[str] = "constant"


@dataclass(frozen=True)
class Geometric(SigmaSchedule):
    """sigma is divided by gamma in every k0-th round, after its consensus and before its gradients.

    Rounds 1 .. k0-1 use sigma^0, and round k0 is the first with sigma^0 / gamma. Every growth shortens the distance
    that w can still go, so a small k0 and a small gamma freeze it short of the optimum.

    Attributes:
        gamma: The number that sigma is divided by in one growth.
        k0: The rounds from one growth to the next.

    >>> schedule, sigma = Geometric(gamma=0.5, k0=2), 1.0
    >>> [sigma := schedule.grow(sigma, round_) for round_ in range(1, 6)]
    [1.0, 2.0, 2.0, 4.0, 4.0]
    """

    kind: ClassVar[str] = "geometric"

    gamma: Annotated[float, Gt(0), Le(1)] = 0.95
    k0: Annotated[int, Ge(1)] = 10

    def grow(self, sigma: float, round_: int, memory: Memory = NOTHING) -> float:
        """See SigmaSchedule."""
        return min(sigma / self.gamma, LARGEST) if round_ % self.k0 == 0 else sigma


@dataclass(frozen=True)
class Matched(SigmaSchedule):
    """sigma grows by the same factor in every round, up to a total growth.

    Only the total growth gamma^(-T / k0) of the paper's gamma and k0 matters, so this is the paper's growth by one
    number.

    Attributes:
        growth: The total growth of sigma.
        rounds: T, the rounds of the plan, after which sigma is constant; None: those of the run.

    >>> schedule, sigma = Matched(growth=8, rounds=3), 1.0
    >>> [round(sigma := schedule.grow(sigma, round_), 6) for round_ in range(1, 6)]
    [2.0, 4.0, 8.0, 8.0, 8.0]
    """

    kind: ClassVar[str] = "matched"

    growth: Annotated[float, Ge(1)] = 10.0
    rounds: Rounds | None = None

    def grow(self, sigma: float, round_: int, memory: Memory = NOTHING) -> float:
        """See SigmaSchedule."""
        rounds = self.length_of_run
        return min(sigma * self.growth ** (1 / rounds), LARGEST) if round_ <= rounds else sigma


@dataclass(frozen=True)
class Trapezoid(SigmaSchedule):
    """sigma falls to sigma^0 in a warm-up, rests there, and grows in a cool-down, so that 1/sigma is a trapezoid.

    With W = warmup T and C = cooldown T, sigma_r is sigma^0 W / r up to round W, and sigma^0 growth^((r - T + C) / C)
    in the last C rounds.

    Attributes:
        warmup: The share of the rounds in which 1/sigma rises evenly to that of the first sigma.
        cooldown: The share of the rounds, at the end, in which sigma grows; both shares are at most 1 together.
        growth: The growth in the cool-down.
        rounds: T, the rounds of the plan, after which sigma is constant; None: those of the run.

    >>> schedule, sigma = Trapezoid(warmup=0.4, cooldown=0.4, growth=4, rounds=5), 1.0
    >>> [sigma := schedule.grow(sigma, round_) for round_ in range(1, 7)]
    [2.0, 1.0, 1.0, 2.0, 4.0, 4.0]
    """

    kind: ClassVar[str] = "trapezoid"

    warmup: Share = 0.3
    cooldown: Share = 0.2
    growth: Annotated[float, Ge(1)] = 10.0
    rounds: Rounds | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup + self.cooldown > 1:
            raise ConfigError(
                f"Trapezoid.warmup is {self.warmup} and Trapezoid.cooldown {self.cooldown}, but they must be shares of "
                "the rounds, at most 1 together."
            )

    def factor(self, round_: int) -> float:
        """Return sigma_r / sigma^0, which is 1 before round 1."""
        rounds = self.length_of_run
        if round_ == 0:
            return 1.0
        rising = self.warmup * rounds
        falling = self.cooldown * rounds
        grown = min(round_, rounds) - rounds + falling
        return max(rising / round_, 1.0) * (self.growth ** (grown / falling) if grown > 0 else 1.0)

    def grow(self, sigma: float, round_: int, memory: Memory = NOTHING) -> float:
        """See SigmaSchedule."""
        return min(sigma * (self.factor(round_) / self.factor(round_ - 1)), LARGEST)


class _Rates:
    """The rates that a scheduler of torch makes of the rate 1, step by step.

    Args:
        kind: The scheduler's class.
        options: Its arguments.
    """

    def __init__(self, kind: type[torch.optim.lr_scheduler.LRScheduler], options: Mapping[str, Any]) -> None:
        self._optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        self._scheduler = kind(self._optimizer, **options)
        self._known = [self._rate()]

    def _rate(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def at(self, steps: int) -> float:
        """Return the rate after a number of steps."""
        while len(self._known) <= steps:
            self._optimizer.step()
            self._scheduler.step()
            self._known.append(self._rate())
        return self._known[steps]


@dataclass(frozen=True)
class Shape(SigmaSchedule):
    """1/sigma follows the shape of a learning rate: a warm-up, then a scheduler of torch.

    sigma^0 is where the shape begins, which is the largest step for most schedulers: sigma_r = sigma^0 / f(r), where
    f(r) is r / W in the W rounds of warm-up, and then what the scheduler makes of the rate 1 in r - W - 1 steps, at
    least 1e-6.

    Attributes:
        name: A class of torch.optim.lr_scheduler that depends on the number of the step only; the first sigma is
            divided by what it makes of the rate 1.
        options: The arguments of that class, such as T_max for CosineAnnealingLR.
        warmup: W, the rounds in which 1/sigma rises evenly to that of the first sigma, before the shape begins.

    >>> schedule, sigma = Shape("StepLR", {"step_size": 2, "gamma": 0.5}, warmup=2), 1.0
    >>> [sigma := schedule.grow(sigma, round_) for round_ in range(1, 7)]
    [2.0, 1.0, 1.0, 1.0, 2.0, 2.0]
    """

    kind: ClassVar[str] = "shape"

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    warmup: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        known = torch.optim.lr_scheduler
        kind = getattr(known, self.name, None)
        if not (isinstance(kind, type) and issubclass(kind, known.LRScheduler)):
            raise ConfigError(f"Shape.name is {self.name!r}, but it must be a class of torch.optim.lr_scheduler.")
        if kind is known.ReduceLROnPlateau:
            raise ConfigError("Shape.name is 'ReduceLROnPlateau', but that looks at a loss: use Plateau.")
        try:
            self._rates.at(1)
        except Exception as error:  # the scheduler's class may raise anything
            raise ConfigError(
                f"Shape.options do not fit {self.name}: {type(error).__name__}: {error}; give what it takes."
            ) from error

    @cached_property
    def _rates(self) -> _Rates:
        return _Rates(getattr(torch.optim.lr_scheduler, self.name), self.options)

    def factor(self, round_: int) -> float:
        """Return f(r); f(0) is 1."""
        if round_ == 0:
            return 1.0
        if round_ <= self.warmup:
            return round_ / self.warmup
        return max(self._rates.at(round_ - self.warmup - 1), SMALLEST)

    def grow(self, sigma: float, round_: int, memory: Memory = NOTHING) -> float:
        """See SigmaSchedule."""
        return min(sigma * self.factor(round_ - 1) / self.factor(round_), LARGEST)
