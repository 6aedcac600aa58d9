"""The automatic start: sigma, rho and eps of each rule from the curvature of the mean loss at w^init.

With one sigma for all, full gradients and curvature h of the mean loss along an eigenvector, a quadratic is stable iff

    2 sigma + 4 rho q > 3 h

so the largest h is what the first sigma must be chosen by. It is found by power steps on gradient differences, from
v_0 = P^(-1/2) g(w):

    u_k = P^(-1/2) [g(w + s_k P^(-1/2) v_k) - g(w)] / s_k,    h_k = ||u_k||,    v_{k+1} = u_k / h_k

g is the mean gradient, on one and the same mini-batch of each shard throughout: on others, the difference would be
noise over s. P is the metric, and a step goes a thousandth of ||w||. For a diagonal penalty P is that penalty's metric,
and h_1 is used, the curvature along the first move P^-1 g: the largest is that of a few entries with tiny gradients.
Where parameters are in groups, a rule's curvature is that along the entries of all groups that follow its kind of rule:
what moves at once adds up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import TypeVar

from pisa_ray.algorithm.auto import Auto
from pisa_ray.algorithm.layout import blocks
from pisa_ray.algorithm.methods.admm import PISA, SISA, AdmmRule
from pisa_ray.algorithm.methods.nsisa import NSISA
from pisa_ray.algorithm.methods.sisa_d import EPS, SISAD
from pisa_ray.later import torch

R = TypeVar("R", bound=AdmmRule)

#: How far a power step goes in units of ||w||, and the least root mean square of w that is counted with.
REACH, LEAST = 1e-3, 0.01

#: Digits of what is found that are kept: the last bits of sums in a driver depend on its machine.
DIGITS = 3

#: How many times below the edge is told of SISA and SISA-D: networks stand ten times, as their curvature falls when
#: steps are too long. PISA is told at once.
FAR = 20.0

#: From here on rho stabilises by itself where Q is a curvature.
CURVED = 0.75

#: Of SISA-D: eps as a share of a typical entry where sigma is automatic; rho / sigma where all of the mean gradient is
#: chance, and where nothing is.
EPS_SHARE, NOISY, CLEAR = 0.02, 19.0, 9.0


@dataclass(frozen=True)
class Slope:
    """Gradients at w^init.

    Attributes:
        mean: g, sum_i alpha_i g_i, [p].
        size: sum_i alpha_i |g_i|, by entry, [p].
        square: sum_i alpha_i g_i^2, by entry, [p].
        weight: sum_i alpha_i over the shards that were there.
    """

    mean: torch.Tensor
    size: torch.Tensor
    square: torch.Tensor
    weight: float

    @classmethod
    def of(cls, total: torch.Tensor) -> Slope:
        """From a sum over shards of alpha_i [ g_i | |g_i| | g_i^2 | 1 ], [3 p + 1]."""
        weight = float(total[-1])
        mean, size, square = (total[:-1] / weight).chunk(3)
        return cls(mean, size, square, weight)

    def typical(self, entries: Sequence[slice]) -> float:
        """The root mean square entry of the shards' gradients at some entries of w."""
        squares = [self.square[part].double() for part in entries]
        return math.sqrt(float(sum(x.sum() for x in squares)) / sum(len(x) for x in squares))

    def signal(self, entries: Sequence[slice], alone: float) -> float:
        """The share of ||g||^2 that is none of chance, in [0, 1]: what is left without what unrelated g_i would have.

        Args:
            entries: Of w.
            alone: sum_i alpha_i^2 where they add up to 1: the part of sum_i alpha_i ||g_i||^2 that unrelated g_i leave.
        """
        mean = sum(float(self.mean[part].double().square().sum()) for part in entries)
        square = sum(float(self.square[part].double().sum()) for part in entries)
        if alone >= 1 or mean <= alone * square:
            return 0.0
        return min((mean - alone * square) / (1 - alone) / mean, 1.0)


@dataclass(frozen=True)
class Start:
    """What a rule's numbers are set by.

    Attributes:
        h: Curvature of the mean loss at w^init in the rule's metric, after its number of power steps, above 0.
        typical: Root mean square entry of the shards' gradients at its entries, above 0.
        signal: The share of the mean gradient there that is none of chance; 0 where that cannot be told.
        reports: How often a shard reports in the run.
    """

    h: float
    typical: float
    signal: float = 0.0
    reports: float = 1.0


@dataclass(frozen=True)
class Policy:
    """How a rule's numbers are found.

    Attributes:
        probes: Whether the curvature is to be measured.
        steps: Power steps; 1 is along the first move.
        metric: What the penalty is multiplied by, [p], given the gradients and the typical entry of the part's.
        numbers: From what was measured to what is to be set, by name.
        far: How many times below the edge of stability a sigma is told of; None: of none, as its directions have no
            curvature, or are curvatures themselves.
        q: An entry of Q at the initial model, given the typical entry of the gradients.
    """

    probes: bool
    steps: int
    metric: Callable[[Slope, float], torch.Tensor]
    numbers: Callable[[Start], dict[str, float | str]]
    far: float | None = None
    q: Callable[[float], float] = lambda typical: 1.0


@singledispatch
def policy(rule: AdmmRule) -> Policy:
    """The policy of a kind of rule.

    Raises:
        TypeError: It has none.
    """
    raise TypeError(f"no automatic start is known for {type(rule).__name__}: give sigma and rho")


def started(rule: R, start: Start) -> R:
    """The rule with its numbers set."""
    return rule.with_numbers(policy(rule).numbers(start))


def _plain(slope: Slope, typical: float) -> torch.Tensor:
    """1: the penalty is a number."""
    return torch.ones_like(slope.mean)


@policy.register
def _of_pisa(rule: PISA) -> Policy:
    """Sigma = rho = h, so that 2 sigma + 4 rho q is twice what stability asks for; without rho sigma = 2 h.

    Q of the other preconditioners is a curvature itself, so that rho is 1, and enough from 3/4 on.
    """
    curved = getattr(rule.preconditioner, "curved", True)

    def numbers(start: Start) -> dict[str, float | str]:
        if not curved:
            return _at(rule, start.h, start.h, 1.0)
        holds = isinstance(rule.rho, Auto) or rule.rho >= CURVED
        return _at(rule, start.h, 1.0, start.h if holds else 0.0)

    return Policy(not rule.is_set, 8, _plain, numbers, None if curved else 1.0)


@policy.register
def _of_sisa(rule: SISA) -> Policy:
    """Sigma at h, and rho q as large for an entry of typical size; see PISA."""

    def numbers(start: Start) -> dict[str, float | str]:
        return _at(rule, start.h, start.h / start.typical, start.typical)

    return Policy(not rule.is_set, 8, _plain, numbers, FAR, lambda typical: typical)


@policy.register
def _of_nsisa(rule: NSISA) -> Policy:
    """Sigma 20 and rho 80, whatever the loss: a matrix moves by about 2 o / sigma, with o of unit scale."""

    def numbers(start: Start) -> dict[str, float | str]:
        return {"sigma": choose(rule.sigma, 5, 20, 80), "rho": choose(rule.rho, 8, 80, 800)}

    return Policy(False, 0, _plain, numbers)


@policy.register
def _of_sisa_d(rule: SISAD) -> Policy:
    """Rho = 19 to 9 sigma, by how much of g is chance; 2 sigma + 4 rho = 3 h, also with a given rho; sigma >= sqrt(T).

    The duals average 1 + rho / sigma gradients. A round moves an entry by about 1 / sigma, so in T reports by chance
    alone by sqrt(T) / sigma, which is to be at most 1: nothing else holds weights where a loss is easy.
    """

    def eps(typical: float) -> float:
        if not isinstance(rule.eps, Auto):
            return rule.eps
        return EPS_SHARE * typical if isinstance(rule.sigma, Auto) else EPS

    def numbers(start: Start) -> dict[str, float | str]:
        ratio = NOISY + (CLEAR - NOISY) * start.signal
        best = max(3 * start.h / (2 + 4 * ratio), math.sqrt(start.reports))
        if not isinstance(rule.rho, Auto):
            best = max(best, (3 * start.h - 4 * rule.rho) / 2)
        sigma = choose(rule.sigma, best / 3, best, 3 * best)
        rho = choose(rule.rho, sigma, ratio * sigma, 100 * sigma)
        return {"sigma": sigma, "rho": rho, "eps": rounded(eps(start.typical))}

    return Policy(isinstance(rule.sigma, Auto), 1, lambda slope, typical: slope.size + eps(typical), numbers, FAR)


def _at(rule: AdmmRule, h: float, rho: float, q: float) -> dict[str, float | str]:
    """Sigma about h, and above what stability asks for, (3 h - 4 rho q) / 2; rho where it is not given."""
    rho = choose(rule.rho, rho / 10, rho, 10 * rho)
    least = max(0.3 * h, (3 * h - 4 * rho * q) / 2)
    return {"sigma": choose(rule.sigma, least, max(h, 4 / 3 * least), max(3 * h, least)), "rho": rho}


def choose(setting: float | Auto, least: float, best: float, most: float) -> float:
    """A setting as it is given, or the hint as far as it lies between two bounds, or without one what is best."""
    if not isinstance(setting, Auto):
        return setting
    return rounded(best if setting.hint is None else min(max(setting.hint, least), most))


def rounded(value: float) -> float:
    """A number to DIGITS significant digits."""
    return float(f"{value:.{DIGITS - 1}e}")


def curvature_along(
    gradient: Callable[[torch.Tensor], torch.Tensor],
    w: torch.Tensor,
    g: torch.Tensor,
    metric: torch.Tensor,
    steps: int,
    entries: Sequence[slice] = (slice(None),),
) -> float:
    """Curvature of the mean loss in a metric, by power steps.

    Args:
        gradient: The mean gradient at a point, [p] -> [p].
        w: Where, [p].
        g: The gradient there, [p].
        metric: P, [p], above 0.
        steps: How many; 1: along P^-1 g, many: the largest.
        entries: Along which entries.

    Returns:
        h_steps; 0 or not finite where the loss is flat, or not finite, there.
    """
    root = torch.full_like(metric, math.inf)  # nothing moves there
    for part in entries:
        root[part] = metric[part].sqrt()
    there = torch.cat([w[part] for part in entries])
    reach = REACH * max(_norm(there), LEAST * math.sqrt(len(there)))
    u, h = g / root, 0.0
    for _ in range(steps):
        length = _norm(u)
        if not 0 < length < math.inf:
            return length
        way = u / (length * root)
        step = reach / _norm(way)
        u = (gradient(w + step * way) - g) / (step * root)
        h = _norm(u)
    return h


def _norm(x: torch.Tensor) -> float:
    return math.sqrt(math.fsum(float(x[part].double().square().sum()) for part in blocks(x)))
