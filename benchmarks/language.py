"""A small GPT-2 over four shards: the library with nothing set beside AdamW and Muon + AdamW, which are tuned.

    python benchmarks/language.py --data FOLDER [--rounds 200] [--seeds 0 1] [--out runs/language] [--only NAME ...]

A tied GPT-2 of transformers (2 layers, width 96, 4 heads, 64 positions), a byte-level BPE of 1,000, trained on recipes
(FOLDER/recipes), which are cut in four shards in their order; 4 blocks of 64 tokens a shard and round. All runs go
through the trainer on the same mini-batches; rivals take one step a round on the mean gradient, with the schedule that
the library has where nothing is set (10 % warm-up, 40 % cool-down). Their settings are chosen on a seed of their own
by held-out blocks that are not the test's. Every run has a process of its own, one thread. What has ended (a line in
results.jsonl) is not run again; delete the line of what is to be.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from language_gpt import GPT, LENGTH, VOCABULARY, WIDTH, write_blocks
from muon import MuonAndAdamW

from pisa_ray import NSISA, SISAD, ByColumn, Data, PisaTrainer, SyncOptimizer, Trapezoid
from pisa_ray.algorithm import Method

Made = tuple[Method | None, Trapezoid | None]
Line = dict[str, Any]

#: The seed that settings are chosen on.
SEARCH_SEED = 100

#: Matrices that are none of a block.
TABLES = ((VOCABULARY, WIDTH), (LENGTH, WIDTH))


def adamw(lr: float) -> Made:
    return SyncOptimizer(lr=lr, optimizer="adamw"), Trapezoid(warmup=0.1, cooldown=0.4)


def muon(lr: float, rest: float) -> Made:
    method = SyncOptimizer(lr=lr, optimizer=MuonAndAdamW, options={"ratio": rest / lr, "tables": TABLES})
    return method, Trapezoid(warmup=0.1, cooldown=0.4)


#: What is not tuned.
OURS: dict[str, Made] = {
    "nothing set": (None, None),
    "SISA-D for all": (SISAD(), None),
    "NSISA as in the paper": (NSISA(rest=None), None),
}

#: Settings to choose from.
RIVALS: dict[str, dict[str, Made]] = {
    "AdamW": {f"{lr:g}": adamw(lr) for lr in (0.0005, 0.001, 0.002, 0.003, 0.006, 0.01)},
    "Muon + AdamW": {f"{lr:g} + {rest:g}": muon(lr, rest) for lr in (0.02, 0.04, 0.08) for rest in (0.01, 0.02, 0.04)},
}


def train(out: Path, name: str, setting: str, seed: int, rounds: int) -> Line:
    """One run, in a process that does nothing else."""
    method, schedule = RIVALS[name][setting] if name in RIVALS else OURS[name]
    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        result = PisaTrainer(
            model=GPT,
            data=Data(
                train=out / "train.parquet",
                test=out / "test.parquet",
                validation=out / "validation.parquet",
                input="tokens",
                label="next",
            ),
            partition=ByColumn("part"),
            algorithm=method,
            sigma_schedule=schedule,
            rounds=rounds,
            batch_size=4,
            seed=seed,
            evaluate_every=rounds,  # so that `seconds` has no evaluation in it
            checkpoint_every=None,
            scaling_config=0,
            run_config=Path(folder) / "run",
            progress=False,
        ).fit()
    row = result.metrics
    return {
        "name": name,
        "setting": setting,
        "seed": seed,
        "rounds": rounds,
        "test_loss": row["test_loss"],
        "validation_loss": row["validation_loss"],
        "round_ms": 1e3 * row["seconds"] / rounds,
        "gradients_ms": 1e3 * row["gradient_seconds"] / rounds,
        "peak_mib": _peak(),
        "peak_before_mib": before,
        "load": os.getloadavg()[0],
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Runs:
    """Runs that have ended, and those that are still to be.

    Args:
        out: The folder, with results.jsonl.
        rounds: Of every run.
    """

    def __init__(self, out: Path, rounds: int) -> None:
        self.out, self.rounds, self.log = out, rounds, out / "results.jsonl"
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.done = [json.loads(line) for line in lines]

    def run(self, name: str, setting: str, seed: int) -> Line:
        """The run's line in results.jsonl; it is run if there is none."""
        wanted = {"name": name, "setting": setting, "seed": seed, "rounds": self.rounds}
        for line in self.done:
            if wanted.items() <= line.items():
                return line
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            line = pool.submit(train, self.out, name, setting, seed, self.rounds).result()
        with self.log.open("a") as log:
            log.write(json.dumps(line) + "\n")
        self.done.append(line)
        print(f"{name} {setting}, seed {seed}: test {line['test_loss']:.3f}", flush=True)
        return line

    def chosen(self, name: str) -> str:
        """The setting that is best by held-out blocks on the search's seed; "" where there is no choice."""
        tried = [self.run(name, setting, SEARCH_SEED) for setting in RIVALS.get(name, {})]
        return str(min(tried, key=lambda line: line["validation_loss"])["setting"]) if tried else ""


def table(rows: dict[str, list[Line]]) -> str:
    """Markdown: a method a line; gaps are to the first one, in nats."""
    first = mean(next(iter(rows.values())), "test_loss")
    seeds = [f"seed {line['seed']}" for line in next(iter(rows.values()))]
    names = ["", "setting", *seeds, "mean", "above the first", "round, ms", "times its gradients", "peak MiB"]
    lines = [names, ["---"] * len(names)]
    for name, found in rows.items():
        loss = mean(found, "test_loss")
        ratio = statistics.median(line["round_ms"] / line["gradients_ms"] for line in found)  # which load cancels from
        lines.append(
            [
                name,
                found[0]["setting"],
                *(f"{line['test_loss']:.3f}" for line in found),
                f"{loss:.3f}",
                f"{loss - first:+.3f}",
                f"{min(line['round_ms'] for line in found):.1f}",
                f"{ratio:.2f}",
                f"{max(line['peak_mib'] for line in found):.0f}",
            ]
        )
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def mean(lines: list[Line], key: str) -> float:
    return statistics.mean(line[key] for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that has recipes")
    parser.add_argument("--out", type=Path, default=Path("runs/language"))
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=[*OURS, *RIVALS], default=[*OURS, *RIVALS])
    options = parser.parse_args()
    write_blocks(options.data / "recipes", options.out)
    runs = Runs(options.out, options.rounds)
    setting = {name: runs.chosen(name) for name in options.only}
    found: dict[str, list[Line]] = {name: [] for name in options.only}
    for seed in options.seeds:  # methods side by side, as others may use the machine
        for name in options.only:
            found[name].append(runs.run(name, setting[name], seed))
    print(table(found))
    for name, tried in RIVALS.items():
        if name in options.only:
            scores = (f"{s} {runs.run(name, s, SEARCH_SEED)['validation_loss']:.3f}" for s in tried)
            print(f"{name}, held-out blocks, seed {SEARCH_SEED}: {', '.join(scores)}")


if __name__ == "__main__":
    main()
