"""pisa_ray.optim in a plain loop, with nothing set, beside AdamW and Muon + AdamW, of which the best rates are shown.

    python benchmarks/optim.py --data FOLDER [--steps 200] [--seeds 0 1] [--out runs/optim] [--jobs GPT digits]

Two jobs, one process, one thread: the GPT of language.py on FOLDER/recipes (16 blocks a step), and a small convolution
network on scikit-learn's digits (64 rows a step, of which the last 360 are the test). All rates have 10 % warm-up and
40 % cool-down. Loss and accuracy are the test's, means over the seeds; the time is the median of optimizer.step(), the
memory what the optimizer keeps beside parameters and gradients, in bytes for each parameter.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from language import TABLES
from language_gpt import GPT, write_blocks
from muon import MuonAndAdamW
from sklearn.datasets import load_digits
from torch import nn

from pisa_ray import optim
from pisa_ray.engine.numerics import set_numerics

Make = Callable[[nn.Module], torch.optim.Optimizer]


def adamw(lr: float) -> Make:
    return lambda net: torch.optim.AdamW(net.parameters(), lr=lr)


def muon(lr: float, rest: float) -> Make:
    return lambda net: MuonAndAdamW(net.parameters(), lr, rest / lr, TABLES)


#: By name, the settings that the best is taken of.
RIVALS: dict[str, dict[str, Make]] = {
    "NSISA": {"": lambda net: optim.NSISA(optim.groups(net))},
    "SISA-D": {"": lambda net: optim.SISAD(optim.groups(net))},
    "SISA": {"": lambda net: optim.SISA(optim.groups(net))},
    "PISA": {"": lambda net: optim.PISA(optim.groups(net))},
    "AdamW": {f"{lr:g}": adamw(lr) for lr in (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)},
    "Muon + AdamW": {f"{lr:g} + {rest:g}": muon(lr, rest) for lr, rest in ((0.02, 0.003), (0.02, 0.01), (0.04, 0.01))},
}


@dataclass
class Job:
    """A model, its data, and the rows of a step."""

    model: Callable[[], nn.Module]
    x: torch.Tensor
    y: torch.Tensor
    tested: tuple[torch.Tensor, torch.Tensor]
    rows: int


def digits() -> Job:
    table = load_digits()
    x = torch.tensor(table.data, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    y = torch.tensor(table.target)

    def model() -> nn.Module:
        layers = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))

    return Job(model, x[:-360], y[:-360], (x[-360:], y[-360:]), 64)


def language(recipes: Path, folder: Path) -> Job:
    write_blocks(recipes, folder)
    tables = []
    for name in ("train", "test"):
        columns = pq.read_table(folder / f"{name}.parquet", columns=["tokens", "next"])
        tables.append([torch.tensor(columns[key].to_pylist()) for key in ("tokens", "next")])
    (x, y), (test_x, test_y) = tables
    return Job(GPT, x, y, (test_x, test_y), 16)


@dataclass
class Line:
    """How a run ended."""

    loss: float
    accuracy: float
    step_ms: float
    memory: float


def train(job: Job, make: Make, steps: int, seed: int) -> Line:
    torch.manual_seed(seed)
    net = job.model()
    optimizer = make(net)
    shape = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min(1.0, (k + 1) / (0.1 * steps), max(0.02, (steps - k) / (0.4 * steps)))
    )
    random, times = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        rows = torch.randint(len(job.x), (job.rows,), generator=random)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(job.x[rows]), job.y[rows]).backward()
        start = time.perf_counter()
        optimizer.step()
        times.append(time.perf_counter() - start)
        shape.step()
    net.eval()
    with torch.no_grad():
        scores = torch.cat([net(x) for x in job.tested[0].split(100)])
    kept = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    kept += getattr(optimizer, "_spaces", {}).values()
    return Line(
        nn.functional.cross_entropy(scores, job.tested[1]).item(),
        (scores.argmax(1) == job.tested[1]).float().mean().item(),
        1e3 * statistics.median(times),
        sum(t.numel() * t.element_size() for t in kept) / sum(p.numel() for p in net.parameters()),
    )


def best(job: Job, settings: dict[str, Make], steps: int, seeds: Sequence[int]) -> tuple[str, Line]:
    """The setting with the lowest mean loss, and the means of its runs."""
    found = {}
    for setting, make in settings.items():
        lines = [train(job, make, steps, seed) for seed in seeds]
        means = (statistics.mean(values) for values in zip(*(vars(line).values() for line in lines), strict=True))
        found[setting] = Line(*means)
    return min(found.items(), key=lambda item: item[1].loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that has recipes")
    parser.add_argument("--out", type=Path, default=Path("runs/optim"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--jobs", nargs="+", choices=["GPT", "digits"], default=["GPT", "digits"])
    options = parser.parse_args()
    set_numerics(1)
    for name in options.jobs:
        job = digits() if name == "digits" else language(options.data / "recipes", options.out)
        print(
            f"| {name} | setting | test loss | accuracy, % | step, ms | bytes a parameter |\n|---|---|---|---|---|---|"
        )
        for method, settings in RIVALS.items():
            setting, line = best(job, settings, options.steps, options.seeds)
            numbers = f"{line.loss:.3f} | {100 * line.accuracy:.1f} | {line.step_ms:.2f} | {line.memory:.1f}"
            print(f"| {method} | {setting or 'nothing set'} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
