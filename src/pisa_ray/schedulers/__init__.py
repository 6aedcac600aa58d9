"""Sigma schedules: the penalty of the next round, a pure function of what was planned and what has been seen."""

from pisa_ray.schedulers.adaptive import Adaptive, LagrangianDescent, Memory, Plateau, ResidualBalancing, Seen
from pisa_ray.schedulers.online import OnlineK0
from pisa_ray.schedulers.planned import LARGEST, Constant, Geometric, Matched, Planned, Shape, Trapezoid

#: What decides sigma.
SigmaSchedule = Planned | Adaptive | OnlineK0

__all__ = [
    "LARGEST",
    "Adaptive",
    "Constant",
    "Geometric",
    "LagrangianDescent",
    "Matched",
    "Memory",
    "OnlineK0",
    "Planned",
    "Plateau",
    "ResidualBalancing",
    "Seen",
    "Shape",
    "SigmaSchedule",
    "Trapezoid",
]
