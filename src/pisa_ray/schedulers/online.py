"""Geometric growth whose period k0 is chosen anew during the run: when, at what cost, and the growth in between."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le, Lt

from pisa_ray.errors import ConfigError
from pisa_ray.fields import Count, Decay, Share
from pisa_ray.schedulers.planned import LARGEST, Geometric, Trapezoid
from pisa_ray.schedulers.schedule import NOTHING, Memory, Rounds, SigmaSchedule

#: The cost of evaluating a row, in sample gradients: a forward pass without a backward pass.
EVALUATED = 1 / 3


@dataclass(frozen=True, kw_only=True)
class OnlineK0(SigmaSchedule):
    """After a warm-up, sigma is divided by gamma in every k0-th round; after some rounds, the rungs, k0 is chosen anew.

    Trials make the choice: each trains `length` rounds from the present state, with all the growth of sigma that its k0
    would bring until the next rung, and is judged by the held-out loss. Then the run goes back to where it was. Rungs
    lie at T (j / (n + 1))^2, early ones close together, and the cost allowed for trials determines their number n. The
    warm-up is that of Trapezoid.

    Growth lowers a loss at once, since noise dies away, but a trial does not show its price in the rest of the run. So
    a shorter period must be better by more, the more of the run is left. Periods that let sigma grow by more than
    `most` in the rest of the run are not tried, and this includes the first one: where w is frozen, trials show
    nothing.

    Attributes:
        k0: The first period, in rounds.
        gamma: The number that sigma is divided by in one growth.
        warmup: The share of the rounds in which 1/sigma rises evenly to that of the first sigma.
        factor: The ratio of a period to the next one that is tried.
        length: The rounds of a trial.
        share: The largest cost of all trials and their evaluations, as a share of the gradients of the run without
            them; evaluating a row counts as a third of a gradient.
        longer: A longer period is taken if its held-out loss is lower by more than this share.
        shorter: The same for a shorter period, times the share of the rounds that is left.
        most: The largest growth from a rung to the end of a period that is tried.
        rounds: T, the planned number of rounds; None: those of the run.

    >>> schedule = OnlineK0(rounds=500)
    >>> schedule.trials, schedule.rungs
    (15, (14, 56, 125, 222, 347))
    """

    kind: ClassVar[str] = "online_k0"
    planned: ClassVar[bool] = False
    tries: ClassVar[bool] = True

    k0: Count = 10
    gamma: Annotated[float, Gt(0), Lt(1)] = 0.95
    warmup: Share = 0.3
    factor: Annotated[float, Gt(1)] = 3.0
    length: Annotated[int, Ge(2)] = 3
    share: Annotated[float, Gt(0), Le(1)] = 0.1
    longer: Decay = 0.01
    shorter: Decay = 0.1
    most: Annotated[float, Gt(1)] = 100.0
    rounds: Rounds | None = None

    @property
    def trial_share(self) -> float:
        """See SigmaSchedule."""
        return self.share

    @property
    def trials(self) -> int:
        """The largest number of trials; a trial is evaluated on as many rows as a round goes through."""
        return int(self.share * self.length_of_run / (self.length + EVALUATED))

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The rounds after which k0 is chosen; at each, the present period, a longer and a shorter one can be tried."""
        number = self.trials // 3
        found = {round(self.length_of_run * (j / (number + 1)) ** 2) for j in range(1, number + 1)}
        return tuple(sorted(found - {0}))

    def until(self, round_: int) -> int:
        """Return the number of rounds from a round to the next rung or the end."""
        return min([r for r in self.rungs if r > round_], default=self.length_of_run) - round_

    def period(self, memory: Memory) -> int:
        """Return the present k0, given the memory."""
        return int(memory.get("k0", self.k0))

    def spent(self, memory: Memory) -> int:
        """Return the number of trials so far."""
        return int(memory.get("trials", 0))

    def chooses(self, round_: int, memory: Memory) -> bool:
        """Return whether k0 is to be chosen after a round."""
        return round_ in self.rungs and memory.get("rung") != round_ and self.left(round_, memory) >= 3

    def check(self, duals: bool, method: str, waits: bool, metrics: Collection[str]) -> None:
        """See SigmaSchedule; a run must be long enough and hold out rows."""
        if not waits:
            raise ConfigError(
                "sigma_schedule OnlineK0 goes back after its trials, which a run that does not wait for all shards "
                "cannot: leave asynchronous out, or use another schedule."
            )
        if not self.rungs:
            raise ConfigError(
                f"sigma_schedule OnlineK0 cannot choose in {self.length_of_run} rounds: {self.share:g} of them pays "
                f"for {self.trials} of length {self.length}, and a choice takes 3 trials; use another schedule, or "
                "raise share or rounds."
            )
        if "validation_loss" not in metrics:
            raise ConfigError(
                "sigma_schedule OnlineK0 chooses by the held-out loss, but nothing is held out: set data.validation, "
                "such as 0.1."
            )

    def told(self, memory: Memory) -> dict[str, int]:
        """See SigmaSchedule."""
        return {"k0": self.period(memory), "trial_gradients": int(memory.get("samples", 0))}

    def left(self, round_: int, memory: Memory) -> int:
        """Return how many trials there may be at a rung, with three left for each rung to come."""
        return self.trials - self.spent(memory) - 3 * sum(rung > round_ for rung in self.rungs)

    def remembered(self, k0: int, round_: int, trials: int, samples: int, memory: Memory) -> dict[str, float]:
        """Return the memory after a choice of k0 at a round, which took some trials and sample gradients."""
        spent = {"trials": self.spent(memory) + trials, "samples": memory.get("samples", 0) + samples}
        begun = {"k0": k0, "begun": round_} if k0 != self.period(memory) else {}
        return {**memory, **begun, "rung": round_, **spent}

    def shortest(self, round_: int) -> int:
        """Return the shortest period that is tried after a round."""
        return max(1, math.ceil((self.length_of_run - round_) * math.log(1 / self.gamma) / math.log(self.most)))

    def needed(self, k0: int, than: int, round_: int) -> float:
        """Return the share of a loss by which period k0 must be better than another, after a round."""
        return self.longer if k0 > than else self.shorter * (1 - round_ / self.length_of_run)

    def _warm(self, round_: int) -> float:
        return Trapezoid(self.warmup, cooldown=0.0, rounds=self.length_of_run).factor(round_)

    def grow(self, sigma: float, round_: int, memory: Memory = NOTHING) -> float:
        """Return the penalty of a round, given that of the round before; periods begin at the round of their choice.

        The penalty is constant after T.
        """
        if round_ > self.length_of_run:
            return sigma
        grown = Geometric(self.gamma, self.period(memory)).grow(sigma, round_ - int(memory.get("begun", 0)))
        return min(grown * (self._warm(round_) / self._warm(round_ - 1)), LARGEST)

    def pace(self, k0: int, round_: int) -> float:
        """Return the factor of sigma in each round of a trial; together they are the growth until the next rung."""
        until = self.until(round_)
        warmer = self._warm(round_ + until) / self._warm(round_)
        return float((warmer * self.gamma ** (-until / k0)) ** (1 / self.length))
