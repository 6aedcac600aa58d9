"""Ray Tune around the trainer: runs are trials, whose settings may change while they train."""

from pisa_ray.tuning.history import History
from pisa_ray.tuning.population import population
from pisa_ray.tuning.trainable import PisaTrainable, reserve

__all__ = ["History", "PisaTrainable", "population", "reserve"]
