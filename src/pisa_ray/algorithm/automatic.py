"""The automatic start, which sets sigma, rho and eps of each rule by the curvature of the mean loss at w^init.

With one sigma for all shards, full gradients and the curvature h of the mean loss along an eigenvector, a quadratic is
stable iff

    2 sigma + 4 rho q > 3 h

so the first sigma must be chosen by the largest h. Power steps on gradient differences find it, from
v_0 = P^(-1/2) g(w):

    u_k = P^(-1/2) [g(w + s_k P^(-1/2) v_k) - g(w)] / s_k,    h_k = ||u_k||,    v_{k+1} = u_k / h_k

g is the mean gradient. Each shard takes it on the same mini-batch throughout, as with other mini-batches the difference
would be noise over s. P is the metric, and a step goes a thousandth of ||w||. For a diagonal penalty, P is that
penalty's metric and h_1 is used, the curvature along the first move P^-1 g, because the largest curvature is that of a
few entries with tiny gradients. Where parameters are in groups, the curvature of a rule is taken along the entries of
all groups that follow its kind of rule, as moves made at once add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch

from pisa_ray.algorithm.auto import Auto
from pisa_ray.algorithm.layout import blocks
from pisa_ray.algorithm.methods.admm import PISA, SISA, AdmmRule
from pisa_ray.algorithm.methods.nsisa import NSISA
from pisa_ray.algorithm.methods.sisa_d import EPS, SISAD
from pisa_ray.later import torch

#: How far a power step goes in units of ||w||, and the least root mean square of w for that.
REACH, LEAST = 1e-3, 0.01

#: Significant digits of the numbers that are set: the last bits of a driver's sums depend on its machine.
DIGITS = 3

#: How many times below the edge of stability sigma must be for a warning about SISA and SISA-D. Networks stand ten
#: times, as their curvature falls when steps are too long. For PISA the warning comes at once.
FAR = 20.0

#: Where Q is a curvature, a rho of at least this is stable with any sigma.
CURVED = 0.75

#: For SISA-D: eps as a share of a typical entry where sigma is automatic; rho / sigma where the mean gradient is all
#: chance, and where none of it is.
EPS_SHARE, NOISY, CLEAR = 0.02, 19.0, 9.0


@dataclass(frozen=True)
class Slope:
    """Gradients at w^init.

    Attributes:
        mean: g, sum_i alpha_i g_i, [p].
        size: sum_i alpha_i |g_i|, by entry, [p].
        square: sum_i alpha_i g_i^2, by entry, [p].
        weight: sum_i alpha_i over the shards that took part.
    """

    mean: torch.Tensor
    size: torch.Tensor
    square: torch.Tensor
    weight: float

    @classmethod
    def of(cls, total: torch.Tensor) -> Slope:
        """Make one from a sum over shards of alpha_i [ g_i | |g_i| | g_i^2 | 1 ], [3 p + 1]."""
        weight = float(total[-1])
        mean, size, square = (total[:-1] / weight).chunk(3)
        return cls(mean, size, square, weight)

    def typical(self, entries: Sequence[slice]) -> float:
        """Return the root mean square entry of the shards' gradients at some entries of w."""
        squares = [self.square[part].double() for part in entries]
        return math.sqrt(float(sum(x.sum() for x in squares)) / sum(len(x) for x in squares))

    def signal(self, entries: Sequence[slice], alone: float) -> float:
        """Return the share of ||g||^2 that is not due to chance, in [0, 1]: unrelated g_i would have the remainder.

        Args:
            entries: The entries of w to look at.
            alone: sum_i alpha_i^2 for weights of the sum 1: the share of sum_i alpha_i ||g_i||^2 left by unrelated g_i.
        """
        mean = sum(float(self.mean[part].double().square().sum()) for part in entries)
        square = sum(float(self.square[part].double().sum()) for part in entries)
        if alone >= 1 or mean <= alone * square:
            return 0.0
        return min((mean - alone * square) / (1 - alone) / mean, 1.0)


@dataclass(frozen=True)
class Start:
    """The measurements that a rule's numbers are set by.

    Attributes:
        h: Curvature of the mean loss at w^init in the rule's metric, after the policy's power steps, above 0.
        typical: Root mean square entry of the shards' gradients at the rule's entries, above 0.
        signal: The share of the mean gradient there that is not due to chance; 0 where that is unknown.
        reports: How often a shard reports in the run.
    """

    h: float
    typical: float
    signal: float = 0.0
    reports: float = 1.0


@dataclass(frozen=True)
class Policy:
    """How the numbers of a rule are found.

    Attributes:
        probes: Whether the curvature is to be measured.
        steps: Number of power steps; 1 measures along the first move.
        metric: Returns what the penalty is multiplied by, [p], given the gradients and the part's typical entry.
        numbers: Returns the numbers to set, by name, given the measurements.
        far: How many times below the edge of stability a sigma must be for a warning. None: no warning, as the rule's
            directions have no curvature, or are curvatures themselves.
        q: Returns an entry of Q at the initial model, given the typical entry of the gradients.
    """

    probes: bool
    steps: int
    metric: Callable[[Slope, float], torch.Tensor]
    numbers: Callable[[Start], dict[str, float | str]]
    far: float | None = None
    q: Callable[[float], float] = lambda typical: 1.0


@singledispatch
def policy(rule: AdmmRule) -> Policy:
    """Return the policy for a rule.

    Raises:
        TypeError: If there is none for its kind.
    """
    raise TypeError(f"no automatic start is known for {type(rule).__name__}: give sigma and rho")


def _plain(slope: Slope, typical: float) -> torch.Tensor:
    """Return ones, the metric of a penalty that is a number."""
    return torch.ones_like(slope.mean)


@policy.register
def _of_pisa(rule: PISA) -> Policy:
    """Set sigma = rho = h, so that 2 sigma + 4 rho q is twice what stability asks for; without rho, sigma = 2 h.

    The other preconditioners make Q a curvature itself; there rho is 1, and 3/4 would be enough.
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
    """Set sigma = h, and rho q = h for an entry of typical size; see PISA."""

    def numbers(start: Start) -> dict[str, float | str]:
        return _at(rule, start.h, start.h / start.typical, start.typical)

    return Policy(not rule.is_set, 8, _plain, numbers, FAR, lambda typical: typical)


@policy.register
def _of_nsisa(rule: NSISA) -> Policy:
    """Set sigma 20 and rho 80 for any loss: a matrix moves by about 2 o / sigma, with o of unit scale."""

    def numbers(start: Start) -> dict[str, float | str]:
        return {"sigma": choose(rule.sigma, 5, 20, 80), "rho": choose(rule.rho, 8, 80, 800)}

    return Policy(False, 0, _plain, numbers)


@policy.register
def _of_sisa_d(rule: SISAD) -> Policy:
    """Set rho = 19 to 9 sigma, by how much of g is chance, with 2 sigma + 4 rho = 3 h and sigma >= sqrt(T).

    The duals average 1 + rho / sigma gradients. A round moves an entry by about 1 / sigma, so T reports move it by
    sqrt(T) / sigma through chance alone. That must be at most 1, as nothing else holds weights where a loss is easy.
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
    """Set sigma to about h and above what stability asks for, (3 h - 4 rho q) / 2, and rho where it is not given."""
    rho = choose(rule.rho, rho / 10, rho, 10 * rho)
    least = max(0.3 * h, (3 * h - 4 * rho * q) / 2)
    return {"sigma": choose(rule.sigma, least, max(h, 4 / 3 * least), max(3 * h, least)), "rho": rho}


def choose(setting: float | Auto, least: float, best: float, most: float) -> float:
    """Return a number as it is given, or its hint brought between two bounds, or the best value if there is no hint."""
    if not isinstance(setting, Auto):
        return setting
    return rounded(best if setting.hint is None else min(max(setting.hint, least), most))


def rounded(value: float) -> float:
    """Return a number to DIGITS significant digits."""
    return float(f"{value:.{DIGITS - 1}e}")


def curvature_along(
    gradient: Callable[[torch.Tensor], torch.Tensor],
    w: torch.Tensor,
    g: torch.Tensor,
    metric: torch.Tensor,
    steps: int,
    entries: Sequence[slice] = (slice(None),),
) -> float:
    """Measure the curvature of the mean loss in a metric, by power steps.

    Args:
        gradient: Returns the mean gradient at a point, [p] -> [p].
        w: The point to measure at, [p].
        g: The gradient at w, [p].
        metric: P, [p], above 0.
        steps: Number of power steps: 1 measures along P^-1 g, many find the largest curvature.
        entries: The entries of w to measure along.

    Returns:
        h_steps; 0 where the loss is flat, and not finite where the loss is not.
    """
    root = torch.full_like(metric, math.inf)  # so that nothing moves elsewhere
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
