"""pisa_ray: train PyTorch models with PISA, SISA and NSISA over data shards on Ray workers."""

from pisa_ray.algorithm import NSISA, PISA, SISA, SISAD, AdaGrad, Adam, RMSProp
from pisa_ray.data import (
    IID,
    ByColumn,
    ByFeature,
    Dirichlet,
    Distorted,
    FeatureNoise,
    Indices,
    LabelSkew,
    Noise,
    QuantitySkew,
    Recolour,
    Rotate,
    ShiftLabels,
)
from pisa_ray.errors import ConfigError, NonFiniteError, PisaError
from pisa_ray.schedulers import Constant, Geometric
from pisa_ray.trainer import Data, PisaTrainer, Result, Scaling

__all__ = [
    "IID",
    "NSISA",
    "PISA",
    "SISA",
    "SISAD",
    "AdaGrad",
    "Adam",
    "ByColumn",
    "ByFeature",
    "ConfigError",
    "Constant",
    "Data",
    "Dirichlet",
    "Distorted",
    "FeatureNoise",
    "Geometric",
    "Indices",
    "LabelSkew",
    "Noise",
    "NonFiniteError",
    "PisaError",
    "PisaTrainer",
    "QuantitySkew",
    "RMSProp",
    "Recolour",
    "Result",
    "Rotate",
    "Scaling",
    "ShiftLabels",
]
