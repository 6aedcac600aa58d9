"""The automatic start: sigma, rho and eps from the curvature of the mean loss at w^init.

With one sigma for all, full gradients and curvature h of the mean loss along an eigenvector, a quadratic is stable iff

    2 sigma + 4 rho q > 3 h

so the largest h is what the first sigma must be chosen by. It is found by power steps on gradient differences, from
v_0 = P^(-1/2) g(w):

    u_k = P^(-1/2) [g(w + s_k P^(-1/2) v_k) - g(w)] / s_k,    h_k = ||u_k||,    v_{k+1} = u_k / h_k

g is the mean gradient, on one and the same mini-batch of each shard throughout: on others, the difference would be
noise over s. P is the metric, and a step goes a thousandth of ||w||. For a diagonal penalty P is that penalty's metric,
and h_1 is used, the curvature along the first move P^-1 g: the largest is that of a few entries with tiny gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pisa_ray import checks
from pisa_ray.algorithm.layout import blocks

#: How far a power step goes in units of ||w||, and the least root mean square of w that is counted with.
REACH, LEAST = 1e-3, 0.01

#: Digits of what is found that are kept: the last bits of sums in a driver depend on its machine.
DIGITS = 3


@dataclass(frozen=True)
class Auto:
    """Stands for a number that the automatic start sets before round 1.

    Attributes:
        hint: A first guess, taken as it is where the start finds it sound, else the nearest value that is; None: none.
    """

    hint: float | None = None

    def __post_init__(self) -> None:
        checks.settle(self, hint=checks.number(above=0, most=1e30) | checks.nothing)


#: The default of every sigma and rho.
AUTO = Auto()

#: What may stand where a number is found by the automatic start.
AUTOMATIC = checks.instance("Auto()", Auto)


def choose(setting: float | Auto, least: float, best: float, most: float) -> float:
    """A setting as it is given, or the hint as far as it lies between two bounds, or without one what is best."""
    if not isinstance(setting, Auto):
        return setting
    return rounded(best if setting.hint is None else min(max(setting.hint, least), most))


def number(value: float | Auto) -> float:
    """A setting that must have been set by now.

    Raises:
        ValueError: It is still to be set.
    """
    if isinstance(value, Auto):
        raise ValueError("sigma or rho is still to be set by the automatic start: give a number, or let a trainer run")
    return value


def rounded(value: float) -> float:
    """A number to DIGITS significant digits."""
    return float(f"{value:.{DIGITS - 1}e}")


@dataclass(frozen=True)
class Slope:
    """Gradients at w^init.

    Attributes:
        mean: g, sum_i alpha_i g_i, [p].
        size: sum_i alpha_i |g_i|, by entry, [p].
        typical: Root mean square entry of the shards' gradients, sqrt(sum_i alpha_i g_i^2 averaged over entries).
        weight: sum_i alpha_i over the shards that were there.
    """

    mean: torch.Tensor
    size: torch.Tensor
    typical: float
    weight: float

    @classmethod
    def of(cls, total: torch.Tensor) -> Slope:
        """From a sum over shards of alpha_i [ g_i | |g_i| | mean of g_i^2 | 1 ], [2 p + 2]."""
        p = (len(total) - 2) // 2
        square, weight = total[2 * p :].tolist()
        return cls(total[:p] / weight, total[p : 2 * p] / weight, math.sqrt(square / weight), weight)


@dataclass(frozen=True)
class Start:
    """What a method sets its numbers by.

    Attributes:
        h: Curvature of the mean loss at w^init in the method's metric, after its number of power steps, above 0.
        typical: See Slope, above 0.
    """

    h: float
    typical: float


def curvature(
    gradient: Callable[[torch.Tensor], torch.Tensor], w: torch.Tensor, g: torch.Tensor, metric: torch.Tensor, steps: int
) -> float:
    """Curvature of the mean loss in a metric, by power steps.

    Args:
        gradient: The mean gradient at a point, [p] -> [p].
        w: Where, [p].
        g: The gradient there, [p].
        metric: P, [p], above 0.
        steps: How many; 1: along P^-1 g, many: the largest.

    Returns:
        h_steps; 0 or not finite where the loss is flat, or not finite, there.
    """
    root = metric.sqrt()
    reach = REACH * max(_norm(w), LEAST * math.sqrt(len(w)))
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
