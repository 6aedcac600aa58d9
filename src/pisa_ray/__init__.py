"""pisa_ray: train PyTorch models with PISA, SISA and NSISA over data shards on Ray workers."""

from pisa_ray.algorithm import (
    MIFA,
    MOON,
    NSISA,
    PISA,
    SISA,
    SISAD,
    AdaGrad,
    Adam,
    FedAdam,
    FedAvg,
    FedNova,
    FedProx,
    FedYogi,
    RMSProp,
    Scaffold,
    SyncOptimizer,
)
from pisa_ray.data import IID, ByColumn, Dirichlet, FeatureNoise, Indices, LabelSkew, QuantitySkew
from pisa_ray.errors import ConfigError, NonFiniteError, PisaError
from pisa_ray.schedulers import Constant, Geometric
from pisa_ray.trainer import Data, PisaTrainer, Result, Scaling

__all__ = [
    "IID",
    "MIFA",
    "MOON",
    "NSISA",
    "PISA",
    "SISA",
    "SISAD",
    "AdaGrad",
    "Adam",
    "ByColumn",
    "ConfigError",
    "Constant",
    "Data",
    "Dirichlet",
    "FeatureNoise",
    "FedAdam",
    "FedAvg",
    "FedNova",
    "FedProx",
    "FedYogi",
    "Geometric",
    "Indices",
    "LabelSkew",
    "NonFiniteError",
    "PisaError",
    "PisaTrainer",
    "QuantitySkew",
    "RMSProp",
    "Result",
    "Scaffold",
    "Scaling",
    "SyncOptimizer",
]
