"""The MNIST job that the benchmarks share, and the figures they read off a Ray node."""

from __future__ import annotations

import os
from pathlib import Path

from pisa_ray import SISA, Data, LabelSkew
from pisa_ray.engine.job import Job
from pisa_ray.models import lenet
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


def lenet_28() -> object:
    return lenet((1, 28, 28), 10)


def mnist_data(*, test: bool = False) -> Data:
    """MNIST; the folder of Parquet files is PISA_RAY_DATA, or data/ in the checkout (docs/data.md)."""
    folder = Path(os.environ.get("PISA_RAY_DATA", Path(__file__).resolve().parents[1] / "data")) / "mnist"
    held_out = folder / "test.parquet" if test else None
    return Data(train=folder / "train.parquet", test=held_out, input="image", label="label")


def mnist_job(batch_size: int = 64, shards: int = 10) -> Job:
    """Ten shards of one digit each, LeNet, SISA."""
    return prepare(
        Config(
            model=lenet_28,  # type: ignore[arg-type]
            data=mnist_data(),
            partition=LabelSkew(shards, 1),
            algorithm=SISA(sigma=1.0, rho=200.0),
            batch_size=batch_size,
        )
    ).job
