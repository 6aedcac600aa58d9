"""Test accuracies of the examples against the bars they are held to, for several seeds.

    python benchmarks/results.py [--seeds 0 1 2] [--workers 0] [--only mnist-sisa]

Data: the folders the examples name. Accuracy is that of the last round (never the best over rounds).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from pisa_ray.cli.config import load
from pisa_ray.cli.train import train

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TWO = ["partition.labels=2"]
DIRICHLET = ["partition={kind: dirichlet, shards: 10, alpha: 0.5}"]

#: (example, overrides, what is special, {round: bar})
CASES = [
    ("digits", [], "one label per shard", {200: 0.96}),
    ("mnist-sisa", [], "one label per shard", {200: 0.935}),
    ("mnist-sisa-d", [], "one label per shard", {100: 0.95, 200: 0.973}),
    ("mnist-sisa", TWO, "two labels per shard", {200: 0.925}),
    ("mnist-sisa-d", TWO, "two labels per shard", {200: 0.973}),
    ("mnist-sisa", DIRICHLET, "Dirichlet(0.5)", {200: 0.93}),
    ("mnist-sisa-d", DIRICHLET, "Dirichlet(0.5)", {200: 0.973}),
    ("adult", [], "one label per shard", {500: 0.843}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--only", help="run the cases of one example")
    options = parser.parse_args()
    print("| example | partition | round | bar | " + " | ".join(f"seed {s}" for s in options.seeds) + " | reached |")
    print("|---|---|---|---|" + "---|" * (len(options.seeds) + 1), flush=True)
    for example, overrides, partition, bars in CASES:
        if options.only not in (None, example):
            continue
        runs = [accuracies(example, [*overrides, f"seed={s}", f"workers={options.workers}"]) for s in options.seeds]
        for round_, bar in bars.items():
            reached = [run[round_] for run in runs]
            verdict = "yes" if min(reached) >= bar else "no" if max(reached) < bar else "not always"
            cells = " | ".join(f"{accuracy:.4f}" for accuracy in reached)
            print(f"| {example} | {partition} | {round_} | {bar} | {cells} | {verdict} |", flush=True)


def accuracies(example: str, overrides: list[str]) -> dict[int, float]:
    """Test accuracy by evaluated round."""
    config = load(EXAMPLES / f"{example}.yaml", [*overrides, "evaluate_every=100"])
    with tempfile.TemporaryDirectory() as folder:
        result = train(config, Path(folder) / "run", progress=False)
        return {row["round"]: row["test_accuracy"] for row in result.history}


if __name__ == "__main__":
    main()
