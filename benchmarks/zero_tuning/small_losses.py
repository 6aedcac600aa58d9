"""Cells judged by their loss: many labels by BCE, regression by MSE and Huber; small MLPs, each run in one process.

Rows are normal features and what a teacher makes of them, drawn with a fixed seed and kept as Parquet files.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional

from pisa_ray import IID, SISAD, ByColumn, Data, NonFiniteError, PisaTrainer, SyncOptimizer, Trapezoid
from pisa_ray.algorithm import Method
from pisa_ray.models import mlp

ROWS, SHARDS, ROUNDS, BATCH = 2400, 8, 120, 32

#: A rival's settings: a method and whether it goes by the trapezoid that the untouched run has.
Setting = tuple[Method, bool]

PARTITIONS = {"IID": IID(SHARDS), "by site": ByColumn("site")}
RATES, SIGMAS = (0.001, 0.003, 0.01, 0.03, 0.1), (5, 10, 20, 40, 80)


def _sync(optimizer: str) -> list[Setting]:
    return [(SyncOptimizer(lr=lr, optimizer=optimizer), shape) for lr in RATES for shape in (False, True)]


RIVALS: dict[str, list[Setting]] = {
    "SISA-D, tuned": [(SISAD(sigma=s, rho=q * s), True) for s in SIGMAS for q in (9, 19)],
    "sync Adam, tuned": _sync("adam"),
    "sync AdamW, tuned": _sync("adamw"),
}
#: What torch's Adam has where nothing is said.
UNTUNED: Setting = (SyncOptimizer(lr=0.001), False)


@dataclass(frozen=True)
class Cells:
    """A data set, its loss, and the two partitions.

    Attributes:
        seed: Of the rows.
        features: How many.
        targets: How many a row.
        teacher: From features and a generator to what targets are made of, each column of unit scale.
        noise: Scale of what is added to that.
        heavy: Whether it is Student's t with two degrees of freedom, and not normal.
        share: Of labels that are 1; None: targets are numbers.
        loss: (output, targets) -> loss.
    """

    seed: int
    features: int
    targets: int
    teacher: Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
    noise: float
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    heavy: bool = False
    share: float | None = None

    metric = "loss"
    partitions = PARTITIONS

    def write(self, folder: Path) -> None:
        """Write train.parquet and test.parquet (features, targets, site)."""
        rng = np.random.default_rng(self.seed)
        x = rng.standard_normal((2 * ROWS, self.features))
        z = self.teacher(x, self.targets, rng)
        z = (z - z.mean(0)) / z.std(0)
        z += self.noise * (rng.standard_t(2, z.shape) if self.heavy else rng.standard_normal(z.shape))
        y = z if self.share is None else z > np.quantile(z, 1 - self.share, axis=0)
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in (("train", slice(ROWS)), ("test", slice(ROWS, None))):
            site = x[part, 0].argsort().argsort() * SHARDS // ROWS  # shards whose features differ
            columns = {"features": x[part], "targets": y[part]}
            lists = {k: pa.array(v.astype(np.float32).tolist(), pa.list_(pa.float32())) for k, v in columns.items()}
            pq.write_table(pa.table({**lists, "site": pa.array(site)}), folder / f"{name}.parquet")


def _line(x: np.ndarray, targets: int, rng: np.random.Generator) -> np.ndarray:
    return x @ rng.standard_normal((x.shape[1], targets))


def _network(x: np.ndarray, targets: int, rng: np.random.Generator) -> np.ndarray:
    hidden = np.maximum(x @ rng.standard_normal((x.shape[1], 16)) / math.sqrt(x.shape[1]), 0)
    return hidden @ rng.standard_normal((16, targets))


BCE = functional.binary_cross_entropy_with_logits

SMALL = {
    "labels": Cells(0, 20, 8, _line, 0.02, BCE, share=0.5),
    "rare labels": Cells(1, 30, 40, _line, 0.1, BCE, share=0.05),
    "wrong labels": Cells(2, 20, 8, _network, 0.5, BCE, share=0.5),
    "regression": Cells(3, 20, 3, _network, 0.3, functional.mse_loss),
    "heavy tails": Cells(4, 20, 3, _network, 0.3, functional.huber_loss, heavy=True),
}


def run_small(name: str, out: Path, seeds: tuple[int, ...], search_seed: int) -> dict[str, Any]:
    """Search for settings on IID shards, and run them and the untouched default on all; what has ended is kept.

    Returns:
        What was found, and all that was tried, by rival.
    """
    cells, place = SMALL[name], out / "final" / name
    if (place / "table.json").exists():
        found: dict[str, Any] = json.loads((place / "settings.json").read_text())
        return found
    cells.write(out / name)
    chosen, settings = dict[str, Any](), {"untouched": None, "sync Adam, untuned": UNTUNED}
    for rival, tried in RIVALS.items():
        scores = [_loss(cells, out / name, "IID", setting, search_seed, "validation") for setting in tried]
        best = min(range(len(tried)), key=lambda k: math.inf if scores[k] is None else scores[k])
        settings[rival] = tried[best]
        everything = [{"settings": str(s), "validation_loss": v} for s, v in zip(tried, scores, strict=True)]
        chosen[rival.partition(",")[0]] = {"settings": str(tried[best]), "tried": everything}
    rows = [
        _row(partition, algorithm, [_loss(cells, out / name, partition, setting, s, "test") for s in seeds])
        for partition, (algorithm, setting) in itertools.product(PARTITIONS, settings.items())
    ]
    place.mkdir(parents=True, exist_ok=True)
    (place / "settings.json").write_text(json.dumps(chosen, indent=1))
    (place / "table.json").write_text(json.dumps({"rows": rows}, indent=1))
    return chosen


def _loss(cells: Cells, data: Path, partition: str, setting: Setting | None, seed: int, split: str) -> float | None:
    """The loss after the last round; None: it diverged."""
    method, shape = setting or (None, True)
    folder = data / "run"
    shutil.rmtree(folder, ignore_errors=True)
    trainer = PisaTrainer(
        model=lambda: mlp((cells.features,), cells.targets, (64,)),
        data=Data(
            train=data / "train.parquet",
            test=data / "test.parquet",
            input="features",
            label="targets",
            validation=0.1,
        ),
        partition=PARTITIONS[partition],
        algorithm=method,
        sigma_schedule=Trapezoid() if method and shape else None,
        loss=cells.loss,
        rounds=ROUNDS,
        batch_size=BATCH,
        evaluate_every=ROUNDS,
        checkpoint_every=None,
        seed=seed,
        scaling_config=0,
        run_config=folder,
        progress=False,
    )
    try:
        loss: float = trainer.fit().metrics[f"{split}_loss"]
    except NonFiniteError:
        return None
    return loss


def _row(partition: str, algorithm: str, losses: list[float | None]) -> dict[str, Any]:
    """As in the table of a comparison."""
    ended = [loss for loss in losses if loss is not None]
    spread = {"mean": sum(ended) / len(ended), "min": min(ended), "max": max(ended)} if ended else {"mean": None}
    return {
        "partition": partition,
        "algorithm": algorithm,
        "seeds": len(losses),
        "measured": len(ended),
        "diverged": len(losses) - len(ended),
        "last_test_loss": spread,
    }
