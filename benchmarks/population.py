"""Does the period k0 of sigma's growth find itself? Population based training against every fixed k0 of the grid.

    python benchmarks/population.py [--method sisa_d] [--rounds 200] [--members 2 5 10 25] [--seed 0]

MNIST, ten shards of one digit, LeNet, SISA (1, 200) or SISA-D (20, 380), gamma 0.95. First a run for each fixed k0,
then as many members of a population that begin at the same k0s and may change them every 20 rounds (the worse half
takes over states of the better), two at work at a time. Chosen by held-out rows, reported on test rows. A population
computes as many gradients as all fixed runs together.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from common import mnist_data
from ray import tune

from pisa_ray import SISA, SISAD, Geometric, LabelSkew
from pisa_ray.models import lenet
from pisa_ray.tuning import History, PisaTrainable, population, reserve

METHODS = {"sisa": SISA(sigma=1.0, rho=200.0), "sisa_d": SISAD(sigma=20.0, rho=380.0)}


def search(folder: Path, name: str, options: argparse.Namespace, scheduler: Any) -> Any:
    """Run a member for each k0, with or without a scheduler."""
    data = mnist_data(test=True)
    data = type(data)(**{**vars(data), "validation": 0.1})

    def build(config: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "model": lambda: lenet((1, 28, 28), 10),
            "data": data,
            "partition": LabelSkew(shards=10),
            "algorithm": METHODS[options.method],
            "sigma_schedule": Geometric(0.95, config["k0"]),
            "rounds": options.rounds,
            "seed": options.seed,
        }

    trainable = tune.with_parameters(PisaTrainable, build=build, every=10)
    return tune.Tuner(
        tune.with_resources(trainable, reserve(cpus=1)),
        param_space={"k0": tune.grid_search(options.members)},
        tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=scheduler is not None),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(folder),
            verbose=0,
            callbacks=[History()],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4),
        ),
    ).fit()


def rows(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(result.path) / "result.json").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--members", type=int, nargs="+", default=[2, 5, 10, 25], help="their first k0s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", choices=METHODS, default="sisa_d")
    options = parser.parse_args()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, scheduler in (
            ("fixed", None),
            ("population", population({"k0": options.members}, interval=20, quantile_fraction=0.5)),
        ):
            results = search(Path(folder), name, options, scheduler)
            for result in results:
                history = rows(result)
                last = history[-1]
                k0s = [row["k0"] for row in history]
                pairs = zip(history[1:], k0s, strict=False)
                changes = [f"{row['round']}: {row['k0']}" for row, before in pairs if row["k0"] != before]
                print(
                    f"{name:10s} first k0 {k0s[0]:3d}  held-out {100 * last['validation_accuracy']:.2f}  "
                    f"test {100 * last['test_accuracy']:.2f}  changed at {', '.join(changes) or '-'}"
                )
            found[name] = results.get_best_result("validation_accuracy", "max").metrics
        best, reached = (100 * found[name]["test_accuracy"] for name in ("fixed", "population"))
        print(f"chosen by held-out rows: fixed k0 {best:.2f}, population {reached:.2f}, {reached - best:+.2f}")


if __name__ == "__main__":
    main()
