"""The algorithm: torch only, no Ray, no files. Read admm.py first, then message.py."""

from pisa_ray.algorithm.admm import NSISA, PISA, SISA, SISAD, Method, Task
from pisa_ray.algorithm.curvature import Curvature
from pisa_ray.algorithm.layout import Layout, Slot
from pisa_ray.algorithm.message import Message, RowLayout, TreeSum, consensus
from pisa_ray.algorithm.preconditioners import (
    EmpiricalFisher,
    FisherDiagonal,
    GaussNewton,
    Hessian,
    HessianDiagonal,
    Identity,
    Preconditioner,
)
from pisa_ray.algorithm.second_moment import AdaGrad, Adam, Instantaneous, RMSProp, SecondMoment
from pisa_ray.algorithm.state import ShardState

__all__ = [
    "NSISA",
    "PISA",
    "SISA",
    "SISAD",
    "AdaGrad",
    "Adam",
    "Curvature",
    "EmpiricalFisher",
    "FisherDiagonal",
    "GaussNewton",
    "Hessian",
    "HessianDiagonal",
    "Identity",
    "Instantaneous",
    "Layout",
    "Message",
    "Method",
    "Preconditioner",
    "RMSProp",
    "RowLayout",
    "SecondMoment",
    "ShardState",
    "Slot",
    "Task",
    "TreeSum",
    "consensus",
]
