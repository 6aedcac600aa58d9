"""How far a bad first sigma can be forgiven: schedules and the automatic start on small convex problems.

    python benchmarks/robustness.py [--rounds 500] [--problems 3] [--many 30] [--out runs/robustness]

1. map    9 first sigmas from 1e-4 to 1e4, 3 least-squares problems, with and without noise, PISA with Q = I and rho 0
          and 10: how many of 27 runs end below a hundredth of the first error, for every schedule. In the last line the
          sigma is only a hint for the automatic start.
2. many   nothing set, 30 problems with condition numbers 10 to 1e4 and losses scaled by 1e-3 to 1e3, least squares and
          logistic: how many end below a hundredth, for every method.

A problem has ten shards of 60 rows, 100 unknowns, shards and columns of unequal scale. The error is that of the loss
on all rows, (F(w) - F*) / (F(w_0) - F*). With noise every right-hand side has normal noise of a half, and mini-batches
have a third of a shard's rows; without, batches are whole. Each run is PisaTrainer's, in one process.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import ray
import torch
from safetensors.torch import load_file
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional

from pisa_ray import PISA, SISA, SISAD, Data, Indices, NonFiniteError, PisaTrainer
from pisa_ray.algorithm import Auto, Method
from pisa_ray.schedulers import (
    Constant,
    Geometric,
    LagrangianDescent,
    Matched,
    Plateau,
    ResidualBalancing,
    Shape,
    SigmaSchedule,
    Trapezoid,
)

SHARDS, ROWS, UNKNOWNS = 10, 60, 100
SIGMAS = [10.0**k for k in range(-4, 5)]
GOOD = 1e-2

SCHEDULES: dict[str, SigmaSchedule] = {
    "constant": Constant(),
    "geometric, gamma 0.95, k0 10": Geometric(0.95, 10),
    "geometric, gamma 0.95, k0 1": Geometric(0.95, 1),
    "matched, growth 10": Matched(10),
    "matched, growth 1000": Matched(1000),
    "shape, cosine": Shape("CosineAnnealingLR", {"T_max": 450, "eta_min": 0.1}, warmup=50),
    "trapezoid": Trapezoid(),
    "residual balancing": ResidualBalancing(most=1e8),
    "Lagrangian descent": LagrangianDescent(most=1e8),
    "plateau": Plateau(most=1e8),
}
AUTOMATIC = "automatic start, sigma a hint"


@dataclass(frozen=True)
class Problem:
    """Least squares, or logistic regression where `logistic`.

    Attributes:
        seed: Of everything.
        noise: Whether right-hand sides (labels) are noisy and batches are a part of the rows.
        condition: Ratio of the largest and the smallest curvature that columns make.
        scale: Factor of the loss.
        logistic: Which kind.
    """

    seed: int
    noise: bool
    condition: float = 100.0
    scale: float = 1.0
    logistic: bool = False

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """All shards' rows, one shard after the other: [600, 100] and [600]."""
        rng = np.random.default_rng(self.seed)
        root = math.sqrt(self.condition)
        columns = rng.permutation(np.geomspace(root**0.5, root**-0.5, UNKNOWNS))
        shards = np.repeat(np.geomspace(10**-0.5, 10**0.5, SHARDS), ROWS)
        A = rng.standard_normal((SHARDS * ROWS, UNKNOWNS)) * columns * shards[:, None]
        b = A @ rng.standard_normal(UNKNOWNS) + (0.5 * rng.standard_normal(len(A)) if self.noise else 0.0)
        return A.astype(np.float32), (np.sign(b) if self.logistic else b).astype(np.float32)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean loss; logistic labels are -1 and 1, and a hundredth of the squared output keeps w bounded."""
        output = output.view_as(target)
        if self.logistic:
            return self.scale * (functional.softplus(-target * output).mean() + 0.005 * output.square().mean())
        return self.scale * 0.5 * (output - target).square().mean()

    def error(self, w0: np.ndarray, w: np.ndarray) -> float:
        """What is left of the first error."""
        A, b = (torch.from_numpy(x).double() for x in self.rows())

        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            point = torch.tensor(w, dtype=torch.float64, requires_grad=True)
            value = self.loss(A @ point, b) / self.scale
            (gradient,) = torch.autograd.grad(value, point)
            return float(value), gradient.numpy()

        best = minimize(loss, w0, jac=True, method="L-BFGS-B", options={"maxiter": 20000, "ftol": 0, "gtol": 1e-10}).fun
        return max(loss(w)[0] - best, 0.0) / (loss(w0)[0] - best)


def linear() -> nn.Module:
    return nn.Linear(UNKNOWNS, 1, bias=False)


def run(problem: Problem, method: Method, schedule: SigmaSchedule | None, rounds: int) -> float:
    """The error after a run; infinity where it went to NaN."""
    torch.manual_seed(0)
    out = Path(tempfile.mkdtemp())
    inputs, targets = (torch.from_numpy(x) for x in problem.rows())
    trainer = PisaTrainer(
        model=linear,
        data=Data(train=torch.utils.data.TensorDataset(inputs, targets)),
        partition=Indices([list(range(i * ROWS, (i + 1) * ROWS)) for i in range(SHARDS)]),
        algorithm=method,
        sigma_schedule=schedule,
        loss=problem.loss,
        rounds=rounds,
        batch_size=ROWS // 3 if problem.noise else None,
        evaluate_every=rounds,
        checkpoint_every=None,
        scaling_config=0,
        run_config=out / "run",
        progress=False,
    )
    try:
        found = trainer.fit()
        w = load_file(found.model_path)["weight"].numpy().ravel()
    except NonFiniteError:
        return math.inf
    finally:
        shutil.rmtree(out)
    torch.manual_seed(0)
    error = problem.error(linear().weight.detach().double().numpy().ravel(), w.astype(np.float64))
    return error if math.isfinite(error) else math.inf


COLUMNS = {
    "rho 0": (0.0, False),
    "rho 0, noise": (0.0, True),
    "rho 10": (10.0, False),
    "rho 10, noise": (10.0, True),
}


def map_runs(problems: int) -> Iterator[tuple[tuple[str, str, float, int], Any]]:
    """(line, column, sigma, problem) and the arguments of its run, but for the rounds."""
    for column, (rho, noise) in COLUMNS.items():
        for sigma in SIGMAS:
            for k in range(problems):
                problem = Problem(k, noise)
                for name, schedule in SCHEDULES.items():
                    yield (name, column, sigma, k), (problem, PISA(sigma=sigma, rho=rho), schedule)
                yield (AUTOMATIC, column, sigma, k), (problem, PISA(sigma=Auto(sigma), rho=rho), None)


METHODS: dict[str, Method] = {
    "SISA-D (the default)": SISAD(),
    "SISA": SISA(),
    "PISA, Q = I": PISA(),
    "PISA, rho = 0": PISA(rho=0),
}
KINDS = {
    f"{kind}{', noise' if noise else ''}": (kind == "logistic", noise)
    for kind in ("least squares", "logistic")
    for noise in (False, True)
}


def many_runs(many: int) -> Iterator[tuple[tuple[str, str, float, int], Any]]:
    """As `map_runs`, with the condition number in place of sigma."""
    for column, (logistic, noise) in KINDS.items():
        for k in range(many):
            condition = 10.0 ** (1 + 3 * (k % 6) / 5)
            scale = 10.0 ** (-3 + 6 * (k % 5) / 4)
            for name, method in METHODS.items():
                yield (name, column, condition, k), (Problem(k, noise, condition, scale, logistic), method, None)


def computed(runs: Iterator[tuple[Any, Any]], rounds: int) -> dict[Any, float]:
    """The errors of many runs, computed by tasks of Ray."""
    places, arguments = zip(*runs, strict=True)
    size = 10

    @ray.remote(num_cpus=1)
    def some(part: list[Any]) -> list[float]:
        torch.set_num_threads(1)
        return [run(*one, rounds) for one in part]

    parts = [some.remote(list(arguments[i : i + size])) for i in range(0, len(arguments), size)]
    errors = []
    for i, part in enumerate(parts):
        errors += ray.get(part)
        print(f"\r{min((i + 1) * size, len(places))}/{len(places)} runs", end="", flush=True)
    print()
    return dict(zip(places, errors, strict=True))


def table(found: dict[Any, float], columns: list[str]) -> str:
    """How many runs are good, a line a schedule or method."""
    lines = ["|  | " + " | ".join(columns) + " |", "|" + " --- |" * (len(columns) + 1)]
    for name in dict.fromkeys(place[0] for place in found):
        cells = []
        for column in columns:
            errors = [e for place, e in found.items() if place[:2] == (name, column)]
            cells.append(f"{sum(e < GOOD for e in errors)} of {len(errors)}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def heat_map(found: dict[Any, float], columns: list[str], path: Path) -> None:
    """log10 of the error: a panel a column, a line a schedule, sigma from left to right; means over problems."""
    names = list(dict.fromkeys(place[0] for place in found))
    axis = sorted({place[2] for place in found})
    plt.rcParams.update({"font.size": 8})
    figure, axes = plt.subplots(
        1, len(columns), figsize=(2.5 * len(columns) + 1.5, 0.24 * len(names) + 1.2), sharey=True
    )
    for ax, column in zip(axes, columns, strict=True):
        values = np.array(
            [
                [
                    np.mean([np.log10(np.clip(e, 1e-8, 10)) for p, e in found.items() if p[:3] == (name, column, x)])
                    for x in axis
                ]
                for name in names
            ]
        )
        image = ax.imshow(values, cmap="RdYlBu_r", vmin=-6, vmax=1, aspect="auto")
        ax.set_title(column, fontsize=8, loc="left")
        ax.set_xticks(range(len(axis)), [f"{math.log10(x):.1f}".replace(".0", "") for x in axis], fontsize=7)
        ax.set_yticks(range(len(names)), names)
    figure.supxlabel("log10 of the first sigma" if len(axis) == len(SIGMAS) else "log10 of the condition", fontsize=8)
    figure.tight_layout()
    bar = figure.colorbar(image, ax=axes, pad=0.01)
    bar.set_label("log10 of what is left of the error", fontsize=7)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--problems", type=int, default=3, help="of the map")
    parser.add_argument("--many", type=int, default=30, help="problems with nothing set")
    parser.add_argument("--only", choices=("map", "many"))
    parser.add_argument("--out", type=Path, default=Path("runs/robustness"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    ray.init(log_to_driver=False, include_dashboard=False)
    for name, runs, columns in (
        ("map", map_runs(options.problems), list(COLUMNS)),
        ("many", many_runs(options.many), list(KINDS)),
    ):
        if options.only not in (None, name):
            continue
        found = computed(runs, options.rounds)
        text = table(found, columns)
        print(f"\n{name}: runs below {GOOD:g} after {options.rounds} rounds\n\n{text}\n")
        (options.out / f"{name}.md").write_text(text + "\n")
        raw = [[*place, None if math.isinf(e) else e] for place, e in found.items()]
        (options.out / f"{name}.json").write_text(json.dumps(raw))
        heat_map(found, columns, options.out / f"robustness-{name}.png")


if __name__ == "__main__":
    main()
