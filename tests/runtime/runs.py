"""Small runs on real data, for tests of what must not change a bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from every import every
from safetensors.torch import load_file
from torch import nn

from pisa_ray import Data, Geometric, Indices, PisaTrainer, Result
from pisa_ray.algorithm import (
    MIFA,
    MOON,
    NSISA,
    PISA,
    SISA,
    SISAD,
    FedAdam,
    FedAvg,
    FedNova,
    FedProx,
    FedYogi,
    FisherDiagonal,
    HessianDiagonal,
    Method,
    Scaffold,
    SyncOptimizer,
)
from pisa_ray.engine.job import Job
from pisa_ray.trainer import checkpoint
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare

#: Every kind of method, and others of a kind.
METHODS = every(
    Method,
    pisa=PISA(sigma=3.0, rho=1.0),
    sisa=SISA(sigma=0.3, rho=30.0, lam=1e-3),
    sisa_d=SISAD(sigma=60.0, rho=540.0),
    nsisa=NSISA(sigma=20.0, rho=50.0, rest=SISAD(sigma=60.0, rho=540.0), precision="float32"),
    scaffold=Scaffold(lr=0.1, steps=2, momentum=0.5),
    moon=MOON(lr=0.1, steps=2),
    fedavg=FedAvg(lr=0.1, steps=2),
    fednova=FedNova(lr=0.1, steps=2),
    fedprox=FedProx(lr=0.1, steps=2),
    fedadam=FedAdam(lr=0.1, steps=2),
    fedyogi=FedYogi(lr=0.1, steps=2),
    mifa=MIFA(lr=0.1, epochs=0.5),
) | {
    "sisa_local": SISA(sigma=0.3, rho=30.0, lam=1e-3, local_steps=2),
    "sisa_d_local": SISAD(sigma=20.0, rho=580.0, local_steps=3),
    "fisher": PISA(sigma=3.0, rho=1.0, preconditioner=FisherDiagonal(), local_steps=2),
    "hutchinson": PISA(sigma=3.0, rho=1.0, preconditioner=HessianDiagonal(probes=2, eta=10.0)),
    "adam": SyncOptimizer(lr=0.01),
    "remembering": SyncOptimizer(lr=0.01, remember=True),
}


def plain_net() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


class Rich(nn.Module):
    """All that could make one shard's gradient depend on another's.

    BatchNorm, dropout, a tied, a frozen and an unused parameter, constant buffers, an embedding that forward writes to.
    """

    def __init__(self, max_norm: float | None = 0.5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.first = nn.Linear(64, 64, bias=False)
        self.second = nn.Linear(64, 64, bias=False)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(64, 64)
        self.frozen.requires_grad_(requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(256, 10)
        self.register_buffer("steps", torch.tensor([7, 8]))
        self.register_buffer("scale", torch.ones(1), persistent=False)
        self.table = nn.Embedding(4, 10, max_norm=max_norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x)))) + self.frozen(x)
        x = self.drop(torch.relu(self.norm(self.conv(x.view(-1, 1, 8, 8)))))
        self.steps += 1  # state that a worker must not carry from one shard to the next
        self.scale *= 1.1
        x = x * (1 + 0.01 * self.steps[0]) * self.scale + self.table(torch.tensor([1, 2])).mean()
        return self.head(torch.nn.functional.max_pool2d(x, 1).mean(1).flatten(1).repeat(1, 4))


def uneven(shards: int = 7, rows: int = 500) -> Indices:
    """Shards of unequal size over the first rows of the data; one is smaller than a batch."""
    cuts = np.cumsum([5, *(np.arange(1, shards) ** 2)]).astype(float)
    ends = (cuts / cuts[-1] * (rows - 5)).astype(int)
    starts = [0, *ends[:-1]]
    return Indices(tuple(tuple(range(a, max(b, a + 5))) for a, b in zip(starts, ends, strict=True)))


def run(path: Path, *, workers: int = 0, method: str = "sisa", rounds: int = 6, **changes: Any) -> Result:
    arguments: dict[str, Any] = {
        "model": plain_net,
        "data": Data(train="digits", test="digits:test"),
        "partition": uneven(),
        "algorithm": METHODS[method],
        "sigma_schedule": Geometric(0.9, 2),
        "rounds": rounds,
        "batch_size": 16,
        "evaluate_every": 3,
        "checkpoint_every": None,
        "scaling_config": workers,
        "run_config": path,
        "progress": False,
        **changes,
    }
    return PisaTrainer(**arguments).fit()


def recomputed_sha256(result: Result, module: nn.Module) -> str:
    """weights_sha256 by the contract's own words, from the saved file."""
    tensors = load_file(result.model_path)
    names = [name for name, _ in module.named_parameters()]
    names += [name for name, buffer in module.named_buffers() if buffer.is_floating_point() and name in tensors]
    return hashlib.sha256(b"".join(tensors[n].numpy().astype("<f4").tobytes() for n in names)).hexdigest()


#: Fields of a row that tell of time and place, not of the trajectory.
PLACE = {"seconds", "gradient_seconds", "workers", "bytes_sent"}


def trajectory(result: Result) -> list[Mapping[str, Any]]:
    return [{k: v for k, v in row.items() if k not in PLACE} for row in result.history]


def states(result):
    """The hashes of all shards' tensors and of w in the last checkpoint, whoever wrote which file."""
    saved = checkpoint.latest(result.path / "checkpoints")
    found = {}
    for entry in saved.manifest["files"]["shards"]:
        found |= {k: v.numpy().tobytes() for k, v in load_file(saved.path / entry["file"]).items()}
        found |= {f"{i}/scalars": json.dumps(s, sort_keys=True) for i, s in entry["shards"].items()}
    return found | {"w": load_file(saved.path / "consensus.safetensors")["published"].numpy().tobytes()}


def events(path: Path, kind: str) -> list[dict[str, Any]]:
    """What events.jsonl of a run directory, perhaps of a run that is going on, has of a kind."""
    lines = (path / "events.jsonl").read_text().split("\n")[:-1] if (path / "events.jsonl").exists() else []
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def small_job(**changes: Any) -> Job:
    """SISA-D on digits, in shards of unequal size of which a tenth is held out."""
    arguments: dict[str, Any] = {
        "model": plain_net,
        "data": Data(train="digits", validation=0.1),
        "partition": uneven(),
        "algorithm": METHODS["sisa_d"],
        "batch_size": 16,
        **changes,
    }
    return prepare(Config(**arguments)).job
