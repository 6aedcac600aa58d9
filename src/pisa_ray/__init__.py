"""pisa_ray: train PyTorch models with PISA, SISA and NSISA over data shards on Ray workers."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pisa_ray.algorithm import (
        MIFA,
        MOON,
        NSISA,
        PISA,
        SISA,
        SISAD,
        AdaGrad,
        Adam,
        Auto,
        Clip,
        FedAdam,
        FedAvg,
        FedNova,
        FedProx,
        FedYogi,
        Groups,
        Median,
        RMSProp,
        Scaffold,
        SyncOptimizer,
        TrimmedMean,
    )
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
    from pisa_ray.engine.asynchrony import Asynchronous
    from pisa_ray.errors import ConfigError, NonFiniteError, PisaError
    from pisa_ray.schedulers import (
        Constant,
        Geometric,
        LagrangianDescent,
        Matched,
        OnlineK0,
        Plateau,
        ResidualBalancing,
        Shape,
        Trapezoid,
    )
    from pisa_ray.trainer.prepare import Data
    from pisa_ray.trainer.result import Result
    from pisa_ray.trainer.settings import Scaling
    from pisa_ray.trainer.trainer import PisaTrainer

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
    "Asynchronous",
    "Auto",
    "ByColumn",
    "ByFeature",
    "Clip",
    "ConfigError",
    "Constant",
    "Data",
    "Dirichlet",
    "Distorted",
    "FeatureNoise",
    "FedAdam",
    "FedAvg",
    "FedNova",
    "FedProx",
    "FedYogi",
    "Geometric",
    "Groups",
    "Indices",
    "LabelSkew",
    "LagrangianDescent",
    "Matched",
    "Median",
    "Noise",
    "NonFiniteError",
    "OnlineK0",
    "PisaError",
    "PisaTrainer",
    "Plateau",
    "QuantitySkew",
    "RMSProp",
    "Recolour",
    "ResidualBalancing",
    "Result",
    "Rotate",
    "Scaffold",
    "Scaling",
    "Shape",
    "ShiftLabels",
    "SyncOptimizer",
    "Trapezoid",
    "TrimmedMean",
]

#: Where a name is looked for when it is first asked for, so that importing pisa_ray alone does not import torch.
_HOMES = (
    "errors",
    "algorithm",
    "schedulers",
    "data",
    "engine.asynchrony",
    "trainer.prepare",
    "trainer.result",
    "trainer.settings",
    "trainer.trainer",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in _HOMES:
            module = importlib.import_module(f"pisa_ray.{home}")
            if hasattr(module, name):
                globals()[name] = getattr(module, name)
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
