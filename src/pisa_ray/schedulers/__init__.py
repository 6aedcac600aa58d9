"""Sigma schedules: the penalty of the next round, a pure function of what has been seen."""

from pisa_ray.schedulers.geometric import Constant, Geometric, SigmaSchedule

__all__ = ["Constant", "Geometric", "SigmaSchedule"]
