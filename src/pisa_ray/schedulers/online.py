"""k0 that is chosen anew while the run goes on: when it is, what that may cost, and how sigma grows meanwhile."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le, Lt

from pisa_ray.errors import ConfigError
from pisa_ray.options import Count, Decay, Share
from pisa_ray.schedulers.planned import LARGEST, Geometric, Trapezoid
from pisa_ray.schedulers.schedule import NOTHING, Memory, Rounds, SigmaSchedule

#: A row that is evaluated costs so many sample gradients: a forward pass without the backward one.
EVALUATED = 1 / 3


@dataclass(frozen=True, kw_only=True)
class OnlineK0(SigmaSchedule):
    """After a warm-up sigma is divided by gamma in every k0-th round, and at some rounds, the rungs, k0 is chosen.

    The choice is made by trials: they go `length` rounds on from the state that the run is in, through all that their
    k0 makes of sigma until the next rung, and are judged by the held-out loss; then the run goes on from where it was.
    Rungs lie at T (j / (n + 1))^2, early ones close together. Their number n follows from what all trials may cost.
    The warm-up is Trapezoid's.

    Growth lowers a loss at once, since noise dies away, but what it takes from the rest of the run is not seen in a
    trial. So a shorter period must be better by more, the more of the run is left; and periods that let sigma grow by
    more than `most` in the rest of the run are not tried, the first one's included: where w is frozen, trials show
    nothing.

    Attributes:
        k0: The first period in rounds, at least 1.
        gamma: In (0, 1).
        warmup: Share of the warm-up, in [0, 1].
        factor: Between a period and its neighbours, above 1.
        length: Rounds of a trial, at least 2.
        share: Largest cost of all trials and their evaluations, in sample gradients of the run without them, a row that
            is evaluated counted as a third; in (0, 1].
        longer: A longer period is better if its loss is below by more than this share, in [0, 1).
        shorter: The same for a shorter one, times the share of the rounds that is left.
        most: Largest growth from a rung to the end, above 1.
        rounds: T. None: the rounds of the run.

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
    def length_of_run(self) -> int:
        """T."""
        if self.rounds is None:
            raise ValueError("rounds is not known: the trainer fills it in")
        return self.rounds

    @property
    def trials(self) -> int:
        """How many there may be; a trial is evaluated on as many rows as a round goes through."""
        return int(self.share * self.length_of_run / (self.length + EVALUATED))

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The rounds after which k0 is chosen; each has a period as it is, a longer and a shorter one to try."""
        number = self.trials // 3
        found = {round(self.length_of_run * (j / (number + 1)) ** 2) for j in range(1, number + 1)}
        return tuple(sorted(found - {0}))

    def until(self, round_: int) -> int:
        """The rounds from one to the next rung, or the end."""
        return min([r for r in self.rungs if r > round_], default=self.length_of_run) - round_

    def period(self, memory: Memory) -> int:
        """k0 as it is now, given what the run remembers."""
        return int(memory.get("k0", self.k0))

    def spent(self, memory: Memory) -> int:
        """Trials so far."""
        return int(memory.get("trials", 0))

    def chooses(self, round_: int, memory: Memory) -> bool:
        """Whether k0 is to be chosen after a round."""
        return round_ in self.rungs and memory.get("rung") != round_ and self.left(round_, memory) >= 3

    def check(self, duals: bool, method: str, waits: bool, metrics: Collection[str]) -> None:
        """See SigmaSchedule: k0 can be chosen while a run goes on, if that is long enough and holds something out."""
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
        """How many trials there may be at a rung; each that is to come keeps three."""
        return self.trials - self.spent(memory) - 3 * sum(rung > round_ for rung in self.rungs)

    def remembered(self, k0: int, round_: int, trials: int, samples: int, memory: Memory) -> dict[str, float]:
        """What to remember of a choice after a round, which took so many trials and sample gradients."""
        spent = {"trials": self.spent(memory) + trials, "samples": memory.get("samples", 0) + samples}
        begun = {"k0": k0, "begun": round_} if k0 != self.period(memory) else {}
        return {**memory, **begun, "rung": round_, **spent}

    def shortest(self, round_: int) -> int:
        """The shortest period that is tried after a round."""
        return max(1, math.ceil((self.length_of_run - round_) * math.log(1 / self.gamma) / math.log(self.most)))

    def needed(self, k0: int, than: int, round_: int) -> float:
        """By what share of a loss a period must be better than another, after a round."""
        return self.longer if k0 > than else self.shorter * (1 - round_ / self.length_of_run)

    def _warm(self, round_: int) -> float:
        return Trapezoid(self.warmup, cooldown=0.0, rounds=self.length_of_run).factor(round_)

    def grow(self, sigma: float, round_: int, memory: Memory = NOTHING) -> float:
        """The penalty of a round, from that of the round before; periods are counted from where they were chosen on.

        Constant after T.
        """
        if round_ > self.length_of_run:
            return sigma
        grown = Geometric(self.gamma, self.period(memory)).grow(sigma, round_ - int(memory.get("begun", 0)))
        return min(grown * (self._warm(round_) / self._warm(round_ - 1)), LARGEST)

    def pace(self, k0: int, round_: int) -> float:
        """The factor of sigma in each round of a trial: in all of them as much as until the next rung."""
        until = self.until(round_)
        warmer = self._warm(round_ + until) / self._warm(round_)
        return float((warmer * self.gamma ** (-until / k0)) ** (1 / self.length))
