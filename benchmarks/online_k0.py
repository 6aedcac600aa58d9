"""k0 chosen while one run goes on, from bad starts: sigma ten times too large or too small, k0 of 1 or 1,000.

    python benchmarks/online_k0.py [--method sisa_d] [--rounds 500] [--seeds 0 1] [--processes 2]

MNIST, ten shards of one digit, LeNet, a tenth held out. Runs from the same starts with a fixed k0 stand beside, with
the same warm-up ("fixed"), and where sigma is given, also with the paper's rule, which takes it as it is ("Geometric").
The good start is the automatic one with the best of four fixed periods, chosen by held-out accuracy. A run that goes to
NaN counts 0.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from common import lenet_28, mnist_data

from pisa_ray import SISA, SISAD, Geometric, LabelSkew, NonFiniteError, OnlineK0, PisaTrainer
from pisa_ray.algorithm import AUTO, Auto

METHODS = {"sisa": SISA, "sisa_d": SISAD}
FIXED = (3, 10, 30, 100)


def fixed(k0: int) -> OnlineK0:
    """The same schedule with choices that are never better: the bits of one without trials, which are not counted."""
    return OnlineK0(k0=k0, longer=0.999, shorter=0.999, most=1e30, length=2)


def run(method: str, sigma: float | Auto, schedule: Any, rounds: int, seed: int) -> Mapping[str, Any]:
    """The last row's metrics, with `k0s` where k0 was chosen, and sigma^0; accuracies of 0 where it was not finite."""
    data = mnist_data(test=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = PisaTrainer(
            model=lenet_28,  # type: ignore[arg-type]
            data=type(data)(**{**vars(data), "validation": 0.1}),
            partition=LabelSkew(10),
            algorithm=METHODS[method](sigma=sigma),
            sigma_schedule=schedule,
            rounds=rounds,
            seed=seed,
            evaluate_every=100,
            checkpoint_every=None,
            scaling_config=0,
            run_config=Path(folder) / "run",
            progress=False,
        )
        try:
            result = trainer.fit()
        except NonFiniteError:
            return {"test_accuracy": 0.0, "validation_accuracy": 0.0}
        events = [json.loads(line) for line in (result.path / "events.jsonl").read_text().splitlines()]
    k0s = " ".join(f"{event['round']}: {event['k0']}" for event in events if event["kind"] == "k0_chosen")
    started = [e["sigma"] for e in events if "sigma" in e]
    return {**result.metrics, "k0s": k0s, "sigma_0": started[0] if started else sigma}


def rows(options: argparse.Namespace, sigma: float) -> dict[str, tuple[float | Auto, Any]]:
    """What is run: a first sigma and a schedule, by name; `sigma` is the automatic one."""
    made: dict[str, tuple[float | Auto, Any]] = {}
    for k0 in FIXED:
        made[f"automatic sigma, k0 {k0}, fixed"] = AUTO, fixed(k0)
    for name, first, k0 in (
        ("automatic sigma, k0 10", AUTO, 10),
        ("automatic sigma, k0 1", AUTO, 1),
        ("automatic sigma, k0 1000", AUTO, 1000),
        (f"sigma {10 * sigma:.3g} (x 10), k0 10", 10 * sigma, 10),
        (f"sigma {sigma / 10:.3g} (/ 10), k0 10", sigma / 10, 10),
    ):
        if first != AUTO:
            made[f"{name}, Geometric"] = first, Geometric(0.95, k0)
        made[f"{name}, fixed"] = first, fixed(k0)
        made[f"{name}, online"] = first, OnlineK0(k0=k0, share=options.share, length=options.length)
    return made


def line(name: str, found: Sequence[Mapping[str, Any]], good: float | None) -> str:
    """A line of the table: runs of one row, one a seed."""
    test = [100 * metrics["test_accuracy"] for metrics in found]
    text = f"{name:42s} {mean(found, 'validation_accuracy'):6.2f} {statistics.mean(test):6.2f}"
    text += f" ({', '.join(f'{accuracy:.2f}' for accuracy in test)})"
    if good is not None:
        text += f" {statistics.mean(test) - good:+.2f}"
    if "trial_gradients" in found[0] and "online" in name:
        cost = [m["trial_gradients"] / (m["sample_gradients"] - m["trial_gradients"]) for m in found]
        text += f"  trials {100 * statistics.mean(cost):.1f} %  k0 {'; '.join(m['k0s'] for m in found)}"
    return text


def mean(found: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.mean(100 * metrics[key] for metrics in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="sisa_d")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--share", type=float, default=OnlineK0.share)
    parser.add_argument("--length", type=int, default=OnlineK0.length)
    parser.add_argument("--processes", type=int, default=2, help="runs at a time")
    parser.add_argument("--only", default="", help="rows whose names have this in them, beside the fixed periods")
    options = parser.parse_args()
    sigma = float(run(options.method, AUTO, Geometric(0.95, 10), 1, options.seeds[0])["sigma_0"])
    todo = {name: row for name, row in rows(options, sigma).items() if options.only in name}
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        under_way = {
            name: [pool.submit(run, options.method, *row, options.rounds, seed) for seed in options.seeds]
            for name, row in todo.items()
        }
        print(
            f"{options.method}, {options.rounds} rounds, seeds {options.seeds}: held-out, test, against the good start"
        )
        found: dict[str, list[Mapping[str, Any]]] = {}
        good = None
        for name, futures in under_way.items():
            if good is None and len(found) == len(FIXED) and not options.only:
                best = max(found, key=lambda name: mean(found[name], "validation_accuracy"))
                good = mean(found[best], "test_accuracy")
                print(f"the good start: {best}", flush=True)
            found[name] = [future.result() for future in futures]
            print(line(name, found[name], good), flush=True)


if __name__ == "__main__":
    main()
