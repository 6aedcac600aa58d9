"""The algorithms: torch only, no Ray, no files. Read admm.py first, then message.py; the baselines are beside them."""

from pisa_ray.algorithm.admm import PISA, SISA, Admm, Settings
from pisa_ray.algorithm.auto import AUTO, Auto, number
from pisa_ray.algorithm.automatic import Slope, Start, curvature, policy
from pisa_ray.algorithm.curvature import Curvature
from pisa_ray.algorithm.driver import DualState
from pisa_ray.algorithm.groups import Groups
from pisa_ray.algorithm.layout import Layout, Slot
from pisa_ray.algorithm.local_steps import MIFA, MOON, FedAdam, FedAvg, FedNova, FedProx, FedYogi, Scaffold
from pisa_ray.algorithm.message import Message, Penalties, RowLayout, TreeSum, consensus
from pisa_ray.algorithm.method import Batch, MemoryOf, Method, Task, Update, memory_of
from pisa_ray.algorithm.nsisa import NSISA
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
from pisa_ray.algorithm.sisa_d import SISAD
from pisa_ray.algorithm.standing_sum import StandingSum
from pisa_ray.algorithm.state import ShardState
from pisa_ray.algorithm.synchronous import SyncOptimizer

__all__ = [
    "AUTO",
    "MIFA",
    "MOON",
    "NSISA",
    "PISA",
    "SISA",
    "SISAD",
    "AdaGrad",
    "Adam",
    "Admm",
    "Auto",
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
    "Groups",
    "Hessian",
    "HessianDiagonal",
    "Identity",
    "Instantaneous",
    "Layout",
    "Median",
    "MemoryOf",
    "Message",
    "Method",
    "Penalties",
    "Preconditioner",
    "RMSProp",
    "Reducer",
    "Robust",
    "RowLayout",
    "Scaffold",
    "SecondMoment",
    "Settings",
    "ShardState",
    "Slope",
    "Slot",
    "StandingSum",
    "Start",
    "SyncOptimizer",
    "Task",
    "TreeSum",
    "TrimmedMean",
    "Update",
    "clip_dual",
    "consensus",
    "curvature",
    "memory_of",
    "number",
    "policy",
    "trimmed",
]
