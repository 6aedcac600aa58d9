"""The trainer: prepares a job, runs its rounds, keeps the run directory."""

from pisa_ray.trainer.prepare import Data
from pisa_ray.trainer.result import Result
from pisa_ray.trainer.settings import Scaling
from pisa_ray.trainer.trainer import PisaTrainer

__all__ = ["Data", "PisaTrainer", "Result", "Scaling"]
