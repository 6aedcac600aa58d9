"""The algorithms: torch only, no Ray, no files. Read admm.py first, then message.py; the baselines are beside them."""

from pisa_ray.algorithm.admm import NSISA, PISA, SISA, SISAD, DualState
from pisa_ray.algorithm.curvature import Curvature
from pisa_ray.algorithm.layout import Layout, Slot
from pisa_ray.algorithm.local_steps import MIFA, MOON, FedAdam, FedAvg, FedNova, FedProx, FedYogi, Scaffold
from pisa_ray.algorithm.message import Message, RowLayout, TreeSum, consensus
from pisa_ray.algorithm.method import Batch, Method, Task, Update
from pisa_ray.algorithm.preconditioners import (
    EmpiricalFisher,
    FisherDiagonal,
    GaussNewton,
    Hessian,
    HessianDiagonal,
    Identity,
    Preconditioner,
)
from pisa_ray.algorithm.robust import Clip, Median, Reducer, Robust, TrimmedMean, clip_dual, trimmed
from pisa_ray.algorithm.second_moment import AdaGrad, Adam, Instantaneous, RMSProp, SecondMoment
from pisa_ray.algorithm.standing_sum import StandingSum
from pisa_ray.algorithm.state import ShardState
from pisa_ray.algorithm.synchronous import SyncOptimizer

__all__ = [
    "MIFA",
    "MOON",
    "NSISA",
    "PISA",
    "SISA",
    "SISAD",
    "AdaGrad",
    "Adam",
    "Batch",
    "Clip",
    "Curvature",
    "DualState",
    "EmpiricalFisher",
    "FedAdam",
    "FedAvg",
    "FedNova",
    "FedProx",
    "FedYogi",
    "FisherDiagonal",
    "GaussNewton",
    "Hessian",
    "HessianDiagonal",
    "Identity",
    "Instantaneous",
    "Layout",
    "Median",
    "Message",
    "Method",
    "Preconditioner",
    "RMSProp",
    "Reducer",
    "Robust",
    "RowLayout",
    "Scaffold",
    "SecondMoment",
    "ShardState",
    "Slot",
    "StandingSum",
    "SyncOptimizer",
    "Task",
    "TreeSum",
    "TrimmedMean",
    "Update",
    "clip_dual",
    "consensus",
    "trimmed",
]
