"""Comparisons: algorithms x partitions x seeds on one Ray cluster, at equal work."""

from pisa_ray.cli.compare.compare import Comparison, compare
from pisa_ray.cli.comparison import Spec

__all__ = ["Comparison", "Spec", "compare"]
