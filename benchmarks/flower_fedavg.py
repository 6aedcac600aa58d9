"""FedAvg of pisa_ray against FedAvg of Flower: the same initial weights, shards and batches, the same weights after.

    python benchmarks/flower_fedavg.py [--digits] [--rounds 3] [--env FOLDER] [--workers 2]

MNIST, LeNet, ten shards by Dirichlet(0.5), three rounds in which all report: five local steps of SGD (learning rate
0.05, momentum 0.9, fresh each round) on batches of 64, weights n_i / n. --digits: scikit-learn's digits and a
multi-layer perceptron, which needs no files. Three that share no code do it:

- pisa_ray, on Ray workers (--workers 0: in this process);
- Flower (flower_job.py): its ServerApp, its FedAvg strategy with the default weights, its ClientApps and messages, in
  an environment of its own, since it pins an older Ray. The environment is made on first use, in --env (default: under
  ~/.cache); torch is this environment's, so that both compute with the same kernels;
- a plain torch loop, whose averages are in float64.

Two sets of weights agree if |a - b| <= 1e-6 + 1e-4 |b| for every entry, b being Flower's. Printed: the largest
|a - b|, the largest |a - b| / |b|, the least rtol that would do beside the atol of 1e-6, and loss and accuracy on the
test rows. As a check that the comparison sees anything, neither plain torch with equal weights 1 / m nor the initial
weights may agree with Flower. Rounding grows from round to round, and Flower adds replies up in the order in which they
come in: with --rounds 40 only losses and accuracies can be compared.

Exit status: 0 if all is so, 1 if not, 3 if PyPI cannot be reached to install Flower.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from sysconfig import get_path
from typing import Any

import numpy as np
import torch
from common import lenet_28, mnist_data
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional

import pisa_ray
from pisa_ray import Data, Dirichlet, PisaTrainer
from pisa_ray.data import BatchStream
from pisa_ray.engine.job import Job
from pisa_ray.models import mlp
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare

FLOWER = "1.41.0"
SHARDS, BATCH, SEED = 10, 64, 0
SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "steps": 5}
RTOL, ATOL = 1e-4, 1e-6
UNREACHABLE = 3

Weights = dict[str, np.ndarray]


def mlp_64() -> nn.Module:
    return mlp((64,), 10)


def environment(folder: Path) -> Path:
    """The Python of an environment with Flower, made where it is not there yet; nothing in the folder is deleted."""
    python, made = folder / "bin" / "python", folder / f"flwr-{FLOWER}.made"
    torch_here = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages/torch.pth"
    if not made.exists():
        torch_here.unlink(missing_ok=True)  # so that pip takes nothing of this environment for installed
        venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        done = subprocess.run(
            [*pip, "install", f"flwr[simulation]=={FLOWER}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stderr[-2000:], file=sys.stderr)
            reached = subprocess.run([*pip, "index", "versions", "flwr"], capture_output=True, check=False)
            if reached.returncode:
                print("PyPI cannot be reached, so Flower cannot be installed.", file=sys.stderr)
                sys.exit(UNREACHABLE)
            sys.exit(1)
        made.touch()
    # Last on the path: Flower's own packages come first, torch and what it needs are found here.
    torch_here.write_text(get_path("purelib") + "\n")
    return python


def export(job: Job, model: str, rounds: int, folder: Path) -> None:
    """What Flower gets: initial weights, numbers of rows, and each shard's batches in the order of its local steps."""
    np.savez(folder / "initial.npz", **initial(job))
    for i in range(SHARDS):
        x, y = batches(job, i, rounds)
        np.savez(folder / f"shard-{i}.npz", x=x.numpy(), y=y.numpy())
    sizes = [len(rows) for rows in job.shards]
    (folder / "job.json").write_text(json.dumps({"model": model, "rounds": rounds, "rows": sizes, **SGD}))


def initial(job: Job) -> Weights:
    return {name: tensor.numpy() for name, tensor in job.build_model().saved_tensors().items()}


def batches(job: Job, i: int, rounds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A shard's batches as the model sees them, [rounds * steps, batch, ...]; step k of report r is r * steps + k."""
    rows, stream = job.train.read(job.shards[i]), BatchStream(job.seed, i, len(job.shards[i]), job.batch_size)
    drawn = [rows.batch(stream.positions(count)) for count in range(rounds * SGD["steps"])]
    return torch.stack([job.preprocess(x, training=True) for x, _ in drawn]), torch.stack([y for _, y in drawn])


def flower(python: Path, rounds: int, folder: Path) -> tuple[Weights, dict[str, Any]]:
    ours = ("RAY_ADDRESS", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    variables = {name: value for name, value in os.environ.items() if name not in ours}
    variables |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "FLWR_HOME": str(folder / "flwr")}
    script, log = Path(__file__).with_name("flower_job.py"), folder / "flower.log"
    command, limit = [python, "-s", script, folder], 120 + 20 * rounds
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=variables, timeout=limit, check=False)
    if done.returncode or not (folder / "flower.npz").exists():
        print(log.read_text()[-4000:], file=sys.stderr)
        sys.exit(f"Flower's run ended with exit status {done.returncode} and without weights.")
    told = json.loads((folder / "flower.json").read_text())
    # A client that fails is left out of Flower's average without an error.
    assert [sorted(replies) for replies in told["replies"]] == [list(range(SHARDS))] * rounds, told
    with np.load(folder / "flower.npz") as arrays:
        return dict(arrays), told


def plain(job: Job, rounds: int, weights: Sequence[float]) -> Weights:
    """FedAvg in plain torch, on one thread as the others; averages in float64."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data = [batches(job, i, rounds) for i in range(SHARDS)]
    model, w = job.model(), initial(job)
    for report in range(rounds):
        mean = {name: np.zeros(array.shape) for name, array in w.items()}
        for (x, y), weight in zip(data, weights, strict=True):
            model.load_state_dict({name: torch.from_numpy(array) for name, array in w.items()})
            optimizer = torch.optim.SGD(model.parameters(), lr=SGD["lr"], momentum=SGD["momentum"])
            for step in range(SGD["steps"]):
                count = report * SGD["steps"] + step
                optimizer.zero_grad()
                functional.cross_entropy(model(x[count]), y[count]).backward()
                optimizer.step()
            for name, tensor in model.state_dict().items():
                mean[name] += weight * tensor.numpy()
        w = {name: array.astype(np.float32) for name, array in mean.items()}
    torch.set_num_threads(threads)
    return w


def ours(model: Callable[[], nn.Module], data: Data, rounds: int, workers: int, run: Path) -> Weights:
    trainer = PisaTrainer(
        model=model,
        data=data,
        partition=Dirichlet(SHARDS, 0.5),
        algorithm=pisa_ray.FedAvg(**SGD),
        rounds=rounds,
        batch_size=BATCH,
        seed=SEED,
        scaling_config=workers,
        run_config=run,
        progress=False,
    )
    return load_file(trainer.fit().model_path)


def evaluate(job: Job, weights: Weights) -> tuple[float, float]:
    """Mean loss and accuracy on the test rows."""
    assert job.test is not None
    x, y = job.test.read(np.arange(job.test.rows)).batch(np.arange(job.test.rows))
    model = job.model().eval()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    with torch.no_grad():
        output = model(job.preprocess(x, training=False))
    return float(functional.cross_entropy(output, y)), float((output.argmax(-1) == y).float().mean())


def compare(who: str, a: Weights, b: Weights) -> bool:
    """Print how far a is from b; returns whether |a - b| <= ATOL + RTOL |b| for every entry."""
    assert {name: array.shape for name, array in a.items()} == {name: array.shape for name, array in b.items()}
    x, y = (np.concatenate([w[name].ravel().astype(np.float64) for name in sorted(b)]) for w in (a, b))
    gap, size = np.abs(x - y), np.abs(y)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.nanmax(gap / size)
        least = np.nanmax(np.maximum(gap - ATOL, 0) / size)
    agree = bool(np.all(gap <= ATOL + RTOL * size))
    print(
        f"{who:26} |a-b| {gap.max():8.2e}   |a-b|/|b| {relative:8.2e}   rtol needed {least:8.2e}   "
        f"{'agree' if agree else 'DIFFER'}"
    )
    return agree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", action="store_true")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    default = cache / f"pisa-ray-flower-{FLOWER}-py{sys.version_info.major}{sys.version_info.minor}"
    parser.add_argument("--env", type=Path, default=default, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds, seconds = options.rounds, {}

    def timed(who: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[who] = time.perf_counter() - start
        return result

    python = timed("environment", lambda: environment(options.env.resolve()))
    name, model = ("mlp", mlp_64) if options.digits else ("lenet", lenet_28)
    data = Data(train="digits", test="digits:test") if options.digits else mnist_data(test=True)
    job = prepare(Config(model=model, data=data, partition=Dirichlet(SHARDS, 0.5), batch_size=BATCH, seed=SEED)).job
    sizes = [len(rows) for rows in job.shards]
    results: dict[str, Weights] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        export(job, name, rounds, folder)
        reference, told = timed("Flower", lambda: flower(python, rounds, folder))
        results["pisa_ray"] = timed("pisa_ray", lambda: ours(model, data, rounds, options.workers, folder / "run"))
    results["plain torch"] = timed("plain torch", lambda: plain(job, rounds, [size / sum(sizes) for size in sizes]))
    controls = {"plain torch, weights 1/m": plain(job, rounds, [1 / SHARDS] * SHARDS), "initial weights": initial(job)}

    print(f"flwr {told['versions']['flwr']} with Ray {told['versions']['ray']}, torch {told['versions']['torch']}")
    print(f"{'digits' if options.digits else 'MNIST'}, {name}: shards of {', '.join(map(str, sizes))} rows")
    print(f"{rounds} rounds, {SGD}, batch {BATCH}; order of Flower's average in round 1: {told['replies'][0]}")
    print(", ".join(f"{who} {value:.1f} s" for who, value in seconds.items()))
    print(f"\nheld against Flower: all of |a-b| <= {ATOL:g} + {RTOL:g} |b|? the largest differences")
    good = [compare(who, weights, reference) for who, weights in results.items()]
    blind = [compare(who, weights, reference) for who, weights in controls.items()]
    print()
    for who, weights in {"Flower": reference, **results, **controls}.items():
        print("{:26} test loss {:.6f}   test accuracy {:.4f}".format(who, *evaluate(job, weights)))
    sys.exit(0 if all(good) and not any(blind) else 1)


if __name__ == "__main__":
    main()
