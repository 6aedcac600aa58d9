"""Warnings of a sigma that will freeze a run, or let it explode; docs/theory.md says where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pisa_ray.algorithm import Slope, number, policy
from pisa_ray.engine.fleet import Fleet
from pisa_ray.engine.job import Job
from pisa_ray.errors import ConfigError
from pisa_ray.schedulers import SigmaSchedule
from pisa_ray.trainer.start import probe

#: Power steps of the look at the edge; few, as it is a warning only.
STEPS = 3

#: A run is freezing if it can go less than this share of the way so far in all that is left of it.
IDLE = 0.02

#: Without growth by more than one over this a w that rests has converged.
GROWN = 0.1

#: The share of the rounds at the end in which a run may well come to rest.
END = 0.25


def below_the_edge(fleet: Fleet, job: Job) -> str | None:
    """What to tell of a sigma that stability asks to be larger, at the initial model.

    2 sigma + 4 rho q > 3 h holds along all eigenvectors where the largest curvature is below 1 in the metric
    (2 sigma + 4 rho q) / 3, and below D where sigma and rho are multiplied by that. NSISA's directions have no
    curvature, and preconditioners that are curvatures themselves are not looked at.
    """
    rules = job.method.rules()
    if set(rules) != {""}:  # several, or none
        return None
    its = policy(method := rules[""])
    if its.far is None:
        return None
    sigma, rho = number(method.sigma), number(method.rho)

    def metric(slope: Slope, typical: float) -> torch.Tensor:
        return its.metric(slope, typical) * ((2 * sigma + 4 * rho * its.q(typical)) / 3)

    try:
        start, _ = probe(fleet, job, metric, min(STEPS, its.steps))
    except ConfigError:  # no curvature: nothing can be said
        return None
    if start.h <= its.far:
        return None
    return (
        f"sigma {sigma:g} with rho {rho:g} is {start.h:.3g} times below the edge of stability at the initial model; "
        "raise algorithm.sigma or algorithm.rho, or leave both out."
    )


@dataclass
class Watch:
    """Looks at a run's rows for a w that stands still because of its sigma.

    Args:
        schedule: How sigma goes.
        rounds: Length of the run.
        sigma: That of the last round done, or the first.
        round: The last round done.
    """

    schedule: SigmaSchedule
    rounds: int
    sigma: float
    round: int = 0

    def __post_init__(self) -> None:
        self._first, self._way, self._told = self.sigma, 0.0, False
        self._left: float | None = None  # sum of 1 / sigma over the rounds to come

    def frozen(self, row: Mapping[str, Any]) -> str | None:
        """What to tell of an evaluated round: the way that is left against the way so far.

        The move of a round, times its sigma, is what gradients and duals ask for. As long as they ask for as much,
        rounds a to b move w by that times the sum of their 1 / sigma; so intervals between two evaluations are counted.
        """
        move, round_, sigma = row.get("consensus_move"), int(row["round"]), float(row["sigma"])
        if move is None:
            return None
        passed = self._steps(self.sigma, self.round, round_)
        if self._left is None:  # once: later only what has passed is counted
            self._left = passed + self._steps(sigma, round_, self.rounds)
        self._way += move * passed
        self._left -= passed
        self.round, self.sigma = round_, sigma
        steps = self._left if self.schedule.planned else (self.rounds - round_) / sigma
        left = move * steps
        grows = steps < GROWN * (self.rounds - round_) / sigma or sigma > self._first / GROWN
        if self._told or not grows or round_ > (1 - END) * self.rounds or left >= IDLE * self._way:
            return None
        self._told = True
        return (
            f"w is freezing: sigma, now {sigma:.3g}, lets it go {left:.2g} in the {self.rounds - round_} rounds that "
            f"are left, and it has gone {self._way:.2g}; raise k0 or gamma, or plan less growth."
        )

    def _steps(self, sigma: float, after: int, until: int) -> float:
        """Sum of 1 / sigma_r over the rounds after one until another."""
        if not self.schedule.planned:
            return (until - after) / sigma
        total = 0.0
        for round_ in range(after + 1, until + 1):
            sigma = self.schedule.grow(sigma, round_)
            total += 1 / sigma
        return total
