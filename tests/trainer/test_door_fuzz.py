"""Random values of wrong kinds for every argument and public setting: a ConfigError or a run, and nothing else."""

from __future__ import annotations

import datetime
import decimal
import math
import random
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch import nn

import pisa_ray
from pisa_ray import IID, SISA, ConfigError, Data, Distorted, Geometric, NonFiniteError, PisaTrainer
from pisa_ray.algorithm import HessianDiagonal
from pisa_ray.data import Distortion, Partition
from pisa_ray.fields import rules

ROWS = 20
RANDOM = np.random.default_rng(0)
TABLE = pa.table({"x": list(RANDOM.normal(size=(ROWS, 3)).astype(np.float32)), "y": RANDOM.integers(0, 2, ROWS)})


class Odd:
    """Whose every use raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __getitem__(self, i: int) -> Any:
        raise RuntimeError("no items")

    def __iter__(self) -> Any:
        raise RuntimeError("no items")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __call__(self, *given: Any, **named: Any) -> Any:
        raise RuntimeError("not callable")


def values() -> list[Any]:
    """New ones each time: some can be used up."""
    return [
        None, True, False, 0, -1, 1, 3, 2.5, 0.5,
        10**30, 10**400, -(10**5000), math.nan, math.inf, -math.inf,
        1e-320, 1e300, 1j, decimal.Decimal("0.1"), datetime.date(2026, 1, 1),
        "", "x", "1", "digits", "a\nb", "\0", b"x", [],
        [1], [[0], [1]], [[], [None]], ["x", "y"], [math.nan], [None],
        (), (1, 2), {}, {"a": 1}, {1: 2}, {"lr": 1}, {1, 2},
        object(), int, SISA, nn.Linear, SISA(), IID(2), Geometric(),
        Data(train="digits"), np.float64(0.5), np.int64(2), np.bool_(1), np.array(2),
        np.array([0.5]), np.zeros((2, 2)), np.array(["a"]), np.datetime64("2026-01-01"),
        torch.tensor(0.5), torch.ones(3), torch.zeros((), device="meta"), Path("x"),
        lambda: 3, lambda *given: None, print, len, range(2), slice(1),
        iter([1]), nn.Linear(3, 2), nn.Identity(), nn.functional.mse_loss, Odd(),
        pd.DataFrame({"x": [1.0], "y": [0]}), pd.Series([1]), math, torch.optim.SGD,
        torch.float16, NotImplemented, ..., ConfigError("x"),
    ]  # fmt: skip


#: What has no default in a public class.
NEEDED: dict[str, Any] = {
    "shards": 2, "level": 0.1, "column": "y", "step": 36.0, "name": "ExponentialLR", "options": {"gamma": 0.9},
    "partition": IID(2), "distortion": pisa_ray.Noise(0.1), "train": TABLE,
    "groups": {"rest": pisa_ray.SISAD()},
}  # fmt: skip
CLASSES = {
    name: kind
    for name in sorted(pisa_ray.__all__)
    if is_dataclass(kind := getattr(pisa_ray, name)) and name not in ("Result", "Trained") and fields(kind)
} | {"HessianDiagonal": HessianDiagonal}
TARGETS: list[tuple[str, str]] = [("PisaTrainer", name) for name in rules(PisaTrainer) if name != "opened"]
TARGETS += [(name, field.name) for name, kind in CLASSES.items() for field in fields(kind) if field.init]


def arguments(made: Any) -> dict[str, Any]:
    """Those of a trainer that makes use of a public setting."""
    usual: dict[str, Any] = {"algorithm": SISA(sigma=1.0, rho=1.0), "partition": IID(2)}
    for kind, name, use in (
        (Data, "data", lambda: made),
        (Partition, "partition", lambda: made),
        (Distortion, "partition", lambda: Distorted(IID(2), made)),
        (pisa_ray.Asynchronous, "asynchronous", lambda: made),
        (pisa_ray.TrimmedMean | pisa_ray.Clip, "robust", lambda: made),
        (pisa_ray.Adam | pisa_ray.RMSProp, "algorithm", lambda: SISA(sigma=1.0, rho=1.0, second_moment=made)),
        (HessianDiagonal, "algorithm", lambda: pisa_ray.PISA(sigma=1.0, rho=1.0, preconditioner=made)),
        (pisa_ray.Auto, "algorithm", lambda: SISA(sigma=made)),
        (pisa_ray.Scaling, "scaling_config", lambda: made),
    ):
        if isinstance(made, kind):
            return usual | {name: use()}
    return usual | {"algorithm" if hasattr(made, "initial_state") else "sigma_schedule": made}


def attempt(case: int, folder: Path) -> tuple[str, str, str]:
    """One value for one argument: what was tried, and how it ended."""
    chance = random.Random(case)
    kind, name = TARGETS[case % len(TARGETS)] if case < len(TARGETS) else chance.choice(TARGETS)
    value = chance.choice(values())
    given: dict[str, Any] = {
        "model": lambda: nn.Linear(3, 2),
        "data": Data(train=TABLE, test=TABLE, input="x", label="y"),
        "rounds": 2,
        "batch_size": 4,
        "scaling_config": 0,
        "run_config": folder / "run",
        "progress": False,
    }
    try:
        if kind == "PisaTrainer":
            given |= arguments(None) | {"sigma_schedule": None, name: value}
        else:
            needed = {f.name: NEEDED[f.name] for f in fields(CLASSES[kind]) if f.init and f.name in NEEDED}
            needed = {
                f.name: needed[f.name]
                for f in fields(CLASSES[kind])
                if f.name in needed and f.default is MISSING and f.default_factory is MISSING
            }
            if kind == "Data":
                needed |= {"input": "x", "label": "y"}
            if kind == "Indices":
                needed = {"shards": [[0, 1], [2, 3]]}
            made = CLASSES[kind](**needed | {name: value})
            given |= arguments(made)
        trainer = PisaTrainer(**given)
        if kind == "Scaling" or name == "scaling_config":  # Ray is for other tests
            return kind, name, "made"
        return kind, name, trainer.fit().status
    except (ConfigError, NonFiniteError) as error:
        return kind, name, f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("case", range(40))
def test_a_wrong_value_gives_a_sentence_or_a_run(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attempt(7 * case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", range(300))
def test_many_wrong_values_give_a_sentence_or_a_run(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attempt(case, tmp_path)
