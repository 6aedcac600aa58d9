"""The base of all sigma schedules, kinds that decide the penalty of the next round."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from pisa_ray.errors import ConfigError
from pisa_ray.kinds import Kind

#: A number of rounds, bounded so that plans that list rounds fit into memory.
Rounds = Annotated[int, Ge(1), Le(10**9)]

#: The numbers that a schedule remembers from round to round; checkpoints save them.
Memory = Mapping[str, float]


@dataclass(frozen=True)
class Seen:
    """The results of a round that a schedule can look at.

    Attributes:
        loss: The mean training loss at w, over the mini-batches of the round.
        primal: The primal residual, sqrt(sum_i alpha_i N(w_i - w)^2).
        move: The consensus move, sigma N(w' - w), the classical dual residual.
        lagrangian: The augmented Lagrangian.

    The last three are None where they were not measured.
    """

    loss: float
    primal: float | None = None
    move: float | None = None
    lagrangian: float | None = None


#: The memory at first.
NOTHING: Memory = MappingProxyType({})


class SigmaSchedule(Kind, family="sigma_schedule", homes=("pisa_ray.schedulers",)):
    """How sigma goes from round to round: a pure function of a plan and of what rounds have shown.

    Attributes:
        planned: Whether sigma is known beforehand.
        measures: Whether it looks at more than a round's loss, which costs a gradient and needs duals.
        tries: Whether it chooses the growth by trials, after which the run goes back; see OnlineK0.
    """

    text: ClassVar[str] = "a schedule such as Geometric(gamma=0.9, k0=10)"
    usual: ClassVar[str] = "geometric"
    planned: ClassVar[bool] = True
    measures: ClassVar[bool] = False
    tries: ClassVar[bool] = False

    @property
    def length_of_run(self) -> int:
        """T, the rounds that the schedule is planned over."""
        rounds: int | None = getattr(self, "rounds", None)
        if rounds is None:
            raise ValueError("rounds is not known: the trainer fills it in")
        return rounds

    def over(self, rounds: int) -> SigmaSchedule:
        """Return a copy planned over a number of rounds, unless that is given already or there is no plan."""
        myself: Any = self
        return replace(myself, rounds=rounds) if getattr(self, "rounds", rounds) is None else self

    def grow(self, sigma: float, round_: int, memory: Memory = NOTHING) -> float:
        """Return the penalty of a round before it begins; by default it does not change.

        Args:
            sigma: The penalty of the round before (sigma^0 before round 1).
            round_: The round about to begin, from 1 (ell + 1 in the paper).
            memory: What the schedule remembers.
        """
        return sigma

    def check(self, duals: bool, method: str, waits: bool, metrics: Collection[str]) -> None:
        """Refuse a run that lacks something that the schedule looks at.

        Args:
            duals: Whether the method has duals.
            method: The name of the method.
            waits: Whether rounds wait for all shards.
            metrics: The names of the metrics in the run's rows.

        Raises:
            ConfigError: If something is missing.
        """
        if self.measures and not duals:
            raise ConfigError(
                f"sigma_schedule {type(self).__name__} looks at residuals of duals, but {method} has none: use a "
                "planned schedule, or Plateau."
            )

    def looks(self, round_: int) -> bool:
        """Return whether the schedule looks at a round."""
        return False

    def adapt(self, sigma: float, round_: int, seen: Seen, memory: Memory) -> tuple[float, Memory]:
        """Return the penalty after a round; by default it does not change.

        Args:
            sigma: The penalty of the round.
            round_: The round that has ended.
            seen: What the round has shown.
            memory: The memory that the last call returned; empty at first.

        Returns:
            The next round's penalty, and the new memory.
        """
        return sigma, memory

    def chooses(self, round_: int, memory: Memory) -> bool:
        """Return whether there are trials after a round."""
        return False

    def told(self, memory: Memory) -> dict[str, int]:
        """Return the schedule's entries in a round's row."""
        return {}

    @property
    def trial_share(self) -> float:
        """The cost of the trials, as a share of the run's gradients."""
        return 0.0
