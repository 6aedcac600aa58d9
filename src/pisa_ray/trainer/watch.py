"""Warnings of a sigma that will freeze a run or let it explode; docs/theory.md derives them."""

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

#: The number of power steps for the edge of stability; a warning needs few.
STEPS = 3

#: A run freezes if w can move less than this share of its way so far in all rounds that are left.
IDLE = 0.02

#: If sigma grows by less than one over this, a w that rests has converged.
GROWN = 0.1

#: The last share of the rounds, in which w may rest without a warning.
END = 0.25


def below_the_edge(fleet: Fleet, job: Job) -> str | None:
    """Return a warning if sigma is too small for stability at the initial model, else None.

    2 sigma + 4 rho q > 3 h holds along all eigenvectors if the largest curvature is below 1 in the metric
    (2 sigma + 4 rho q) / 3, and below D where sigma and rho are multiplied by that. NSISA's directions have no
    curvature, and preconditioners that are curvatures themselves are not checked.
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
    except ConfigError:  # the loss has no curvature there
        return None
    if start.h <= its.far:
        return None
    return (
        f"sigma {sigma:g} with rho {rho:g} is {start.h:.3g} times below the edge of stability at the initial model; "
        "raise algorithm.sigma or algorithm.rho, or leave both out."
    )


@dataclass
class Watch:
    """Watches the rows of a run for a w that stands still because of its sigma.

    Args:
        schedule: The sigma schedule.
        rounds: Length of the run.
        sigma: Sigma of the last round done, or the first sigma.
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
        """Return a warning if the way that w can still move is too short against the way so far, else None.

        The move of a round times its sigma depends on gradients and duals only. As long as that stays the same, rounds
        a to b move w by it times the sum of their 1 / sigma. This estimates the moves between two evaluations.
        """
        move, round_, sigma = row.get("consensus_move"), int(row["round"]), float(row["sigma"])
        if move is None:
            return None
        passed = self._steps(self.sigma, self.round, round_)
        if self._left is None:  # later the rounds that have passed are subtracted
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
            f"w is freezing: sigma, now {sigma:.3g}, lets it move {left:.2g} in the {self.rounds - round_} rounds that "
            f"are left, after {self._way:.2g} so far; raise k0 or gamma, or plan less growth."
        )

    def _steps(self, sigma: float, after: int, until: int) -> float:
        """Return the sum of 1 / sigma_r over the rounds after one up to another."""
        if not self.schedule.planned:
            return (until - after) / sigma
        total = 0.0
        for round_ in range(after + 1, until + 1):
            sigma = self.schedule.grow(sigma, round_)
            total += 1 / sigma
        return total
