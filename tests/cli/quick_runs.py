"""A run of `pisa-ray train` that takes a moment, in this process and without Ray, and what it has written."""

import json
from pathlib import Path
from typing import Any

from pisa_ray.cli.main import main

CONFIG = """
name: quick
data: {dataset: digits}
partition: {kind: labels_per_shard, shards: 5, labels: 2}
model: {kind: mlp, hidden: [16]}
algorithm: {kind: sisa, sigma: 0.3, rho: 30}
rounds: 6
batch_size: 16
evaluate_every: 2
workers: 0
checkpoint: {every: 3}
"""
TIMES = {"seconds", "gradient_seconds"}

#: A model that gives NaN after so many forward passes for training, and one with BatchNorm: buffers of all kinds.
MODELS = """
import torch
from torch import nn


class Breaks(nn.Sequential):
    def __init__(self, after):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
        self.after = after

    def forward(self, x):
        self.after -= self.training
        return super().forward(x) * (1 if self.after >= 0 else float("nan"))


def breaks(after):
    return Breaks(after)


def normalised():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
"""


def train(config: Path, out: str, *settings: str, resume: bool = False) -> int:
    options = [part for setting in settings for part in ("--set", setting)]
    flags = ["--resume"] if resume else []
    return main(["train", str(config), *options, "--out", str(config.parent / out), *flags])


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def rows(run: Path) -> list[dict[str, Any]]:
    """The rows of a run, but for what a clock says."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in lines(run / "metrics.jsonl")]


def kinds(run: Path) -> list[str]:
    return [event["kind"] for event in lines(run / "events.jsonl")]
