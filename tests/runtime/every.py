"""One of each kind of a family, whatever there is: for tests of what all of them owe."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from pisa_ray import SISA, SISAD, Indices
from pisa_ray.algorithm import Method, Preconditioner, Robust, SecondMoment
from pisa_ray.data import Distortion, Partition
from pisa_ray.kinds import Kind
from pisa_ray.schedulers import SigmaSchedule

#: The families, by their keys in the file.
FAMILIES: dict[str, type[Kind]] = {
    "algorithm": Method,
    "algorithm.preconditioner": Preconditioner,
    "algorithm.second_moment": SecondMoment,
    "partition": Partition,
    "partition.distort": Distortion,
    "robust": Robust,
    "sigma_schedule": SigmaSchedule,
}

#: What has no default, by name.
NEEDED: dict[str, Any] = {
    "shards": 3,
    "level": 0.1,
    "column": "site",
    "step": 36.0,
    "name": "ConstantLR",
    "groups": {"vectors": SISA(sigma=0.3, rho=30.0), "rest": SISAD(sigma=60.0, rho=540.0)},
}


def every(family: type[Kind], **chosen: Any) -> dict[str, Any]:
    """By kind: what is given, and of the others one with its defaults."""
    chosen = {"indices": Indices([[2, 5], [0, 7, 9]])} | chosen
    return {kind: chosen.get(kind) or _one(cls) for kind, cls in family.known().items()}


def _one(cls: Any) -> Any:
    needed = [f.name for f in fields(cls) if f.init and f.default is MISSING and f.default_factory is MISSING]
    assert set(needed) <= set(NEEDED), f"give NEEDED in {__file__} a value for {set(needed) - set(NEEDED)}"
    return cls(**{name: NEEDED[name] for name in needed})
