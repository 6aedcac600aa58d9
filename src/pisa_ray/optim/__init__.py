"""PISA, SISA, SISA-D and NSISA as optimizers of torch: the rules of pisa_ray.algorithm in any training loop."""

from pisa_ray.optim.methods import NSISA, PISA, SISA, SISAD
from pisa_ray.optim.optimizer import AdmmOptimizer
from pisa_ray.optim.param_groups import groups

__all__ = ["NSISA", "PISA", "SISA", "SISAD", "AdmmOptimizer", "groups"]
