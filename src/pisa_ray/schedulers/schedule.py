"""What all sigma schedules are: kinds that decide the penalty of the next round."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from pisa_ray.errors import ConfigError
from pisa_ray.options import Kind

#: A number of rounds; plans that list rounds stay small enough for memory.
Rounds = Annotated[int, Ge(1), Le(10**9)]

#: What a schedule must remember from round to round; saved in checkpoints.
Memory = Mapping[str, float]


@dataclass(frozen=True)
class Seen:
    """What a round has shown.

    Attributes:
        loss: Mean training loss at w, over the mini-batches of the round.
        primal: Primal residual, sqrt(sum_i alpha_i N(w_i - w)^2).
        move: Consensus move, sigma N(w' - w), the classical dual residual.
        lagrangian: The augmented Lagrangian.

    The last three are None where they were not measured.
    """

    loss: float
    primal: float | None = None
    move: float | None = None
    lagrangian: float | None = None


#: What is remembered at first.
NOTHING: Memory = MappingProxyType({})


class SigmaSchedule(Kind, family="sigma_schedule", homes=("pisa_ray.schedulers",)):
    """How sigma goes from round to round: a pure function of what was planned and of what rounds have shown.

    Attributes:
        planned: Whether sigma is known beforehand.
        measures: Whether it looks at more of a round than the loss, which costs a gradient and needs duals.
        tries: Whether it goes back after trials, to choose how sigma grows; see OnlineK0.
    """

    text: ClassVar[str] = "a schedule such as Geometric(gamma=0.9, k0=10)"
    usual: ClassVar[str] = "geometric"
    planned: ClassVar[bool] = True
    measures: ClassVar[bool] = False
    tries: ClassVar[bool] = False

    def over(self, rounds: int) -> SigmaSchedule:
        """The same, planned over so many rounds where it plans and nobody has said over how many."""
        myself: Any = self
        return replace(myself, rounds=rounds) if getattr(self, "rounds", rounds) is None else self

    def grow(self, sigma: float, round_: int, memory: Memory = NOTHING) -> float:
        """The penalty of a round, before it; as it was, unless overridden.

        Args:
            sigma: Penalty of the round before (sigma^0 before round 1).
            round_: The round about to run, from 1 (ell + 1 in the paper).
            memory: What the schedule remembers.
        """
        return sigma

    def check(self, duals: bool, method: str, waits: bool, metrics: Collection[str]) -> None:
        """Whether a run has what it looks at.

        Args:
            duals: Whether the method has duals.
            method: Its name.
            waits: Whether rounds wait for all shards.
            metrics: What rows measure.

        Raises:
            ConfigError: It has not.
        """
        if self.measures and not duals:
            raise ConfigError(
                f"sigma_schedule {type(self).__name__} looks at residuals of duals, but {method} has none: use a "
                "planned schedule, or Plateau."
            )

    def looks(self, round_: int) -> bool:
        """Whether it looks at a round."""
        return False

    def adapt(self, sigma: float, round_: int, seen: Seen, memory: Memory) -> tuple[float, Memory]:
        """The penalty after a round; as it was, unless overridden.

        Args:
            sigma: That of the round.
            round_: The round that is done.
            seen: What it has shown.
            memory: What this returned the last time; empty at first.

        Returns:
            The next round's penalty, and what to remember.
        """
        return sigma, memory

    def chooses(self, round_: int, memory: Memory) -> bool:
        """Whether it makes trials after a round."""
        return False

    def told(self, memory: Memory) -> dict[str, int]:
        """What is to be told of it in a round's row."""
        return {}

    @property
    def trial_share(self) -> float:
        """What its trials cost, as a share of the run's gradients."""
        return 0.0
