"""The heterogeneity study: search, final runs, studies, tables and plots; `python benchmarks/heterogeneity --help`.

1. search   every algorithm's settings, on seeds of their own, at equal gradients, by the mean accuracy on held-out rows
            (10 % of each shard); the best are kept in settings.json with all that was tried
2. final    the chosen settings on other seeds: test accuracy, and the worst shard's on its held-out rows
3. studies  the paper's own settings, ablations, partial participation, local steps, shards that contradict each other,
            a language per shard

Everything is a `pisa-ray compare` in a folder of its own; what has ended is not run again when the script is.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from languages import write_words
from plots import draw
from rows import (
    ABLATIONS,
    AUTHORS,
    DATASETS,
    LOCAL_RATES,
    LOCAL_STEPS,
    PART,
    PARTICIPATION,
    PRESETS,
    STUDIES,
    Dataset,
    Preset,
    Row,
    local,
)
from tables import write_tables

from pisa_ray.cli.compare import Comparison, compare

HELD_OUT = 0.1


class Study:
    """Comparisons under one folder.

    Args:
        preset: What is run.
        out: The folder.
        data: Where the data sets' folders are.
    """

    def __init__(self, preset: Preset, out: Path, data: Path) -> None:
        self.preset, self.out, self.data = preset, out, data
        kept = out / "settings.json"
        self.chosen: dict[str, dict[str, dict[str, Any]]] = json.loads(kept.read_text()) if kept.exists() else {}

    def run(self) -> None:
        for name, partitions in self.preset.cells.items():
            for partition in partitions:
                self._cell(name, partition)
        for study in self.preset.studies:
            getattr(self, study.replace(" ", "_"))()

    def _cell(self, name: str, partition: str) -> None:
        dataset = DATASETS[name]
        other = self.preset.settings_of.get(name, {}).get(partition)
        if other is None:
            candidates = self.preset.candidates(name, partition)
            self.chosen.setdefault(name, {})[partition] = self._search(name, dataset, partition, candidates)
            self._keep()
        found = self.chosen[name][other or partition]
        rows = {a: found[a]["settings"] for a in self.preset.candidates(name, partition)}
        self._compare(f"final/{name}/{partition}", dataset, {partition: dataset.partition(partition)}, rows)

    def _search(
        self, name: str, dataset: Dataset, partition: str, candidates: dict[str, list[Row]], **base: Any
    ) -> dict[str, Any]:
        """The best settings of each algorithm by validation accuracy, and all that was tried."""
        rows = {f"{a} {k + 1}": row for a, tried in candidates.items() for k, row in enumerate(tried)}
        done = self._compare(
            f"search/{name}/{partition}",
            dataset,
            {partition: dataset.partition(partition)},
            rows,
            seeds=list(self.preset.search_seeds),
            score="validation_accuracy",
            evaluations=1,
            **base,
        )
        score = {r["algorithm"]: None if r["diverged"] else r["last_validation_accuracy"]["mean"] for r in done.rows}
        chosen = {}
        for a, tried in candidates.items():
            scores = [score[f"{a} {k + 1}"] for k in range(len(tried))]
            best = max(range(len(tried)), key=lambda k: -1.0 if scores[k] is None else scores[k])  # None: diverged
            everything = [{"settings": s, "validation_accuracy": v} for s, v in zip(tried, scores, strict=True)]
            chosen[a] = {"settings": tried[best], "tried": everything}
        return chosen

    def _compare(
        self,
        place: str,
        dataset: Dataset,
        partitions: dict[str, Row],
        rows: dict[str, Row],
        *,
        seeds: list[int] | None = None,
        score: str = "test_accuracy",
        evaluations: int = 5,
        equal: str = "gradients",
        **base: Any,
    ) -> Comparison:
        values = {**dataset.base, "checkpoint": {"every": None}, **base}
        files = self.out if dataset.made else self.data
        where = {"validation": HELD_OUT} | {
            k: str(files / v) if k in ("train", "test") else v for k, v in values["data"].items()
        }
        values |= {"data": where, "evaluate_every": max(1, values["rounds"] // evaluations)}
        spec = {
            "name": place,
            "base": values,
            "algorithms": rows,
            "partitions": partitions,
            "seeds": list(self.preset.seeds) if seeds is None else seeds,
            "equal": equal,
            "score": score,
        }
        start = time.perf_counter()
        done = compare(spec, self.out / place, resume=True)
        print(f"{place}: {done.status}, {time.perf_counter() - start:.0f} s", flush=True)
        if done.status == "interrupted":
            raise SystemExit(130)
        if done.failures:
            raise SystemExit("\n".join(done.failures))
        return done

    def _keep(self) -> None:
        part = self.out / "settings.json.part"
        part.write_text(json.dumps(self.chosen, indent=1))
        part.replace(self.out / "settings.json")

    def _found(self, *partitions: str) -> dict[str, Any]:
        """The settings found on MNIST: on the first of these partitions that was searched on."""
        for partition in partitions:
            if partition in self.chosen.get("MNIST", {}):
                return self.chosen["MNIST"][partition]
        raise SystemExit(
            f"{self.out} has no settings found on MNIST, {partitions[-1]}, which this study takes: run the preset "
            "without --only first, or choose another study."
        )

    # Studies, on MNIST but for the last

    def _mnist(self, place: str, partitions: tuple[str, ...], rows: dict[str, Row], **more: Any) -> Comparison:
        dataset = DATASETS["MNIST"]
        return self._compare(f"studies/{place}", dataset, {p: dataset.partition(p) for p in partitions}, rows, **more)

    def authors(self) -> None:
        """The settings of the paper's code, for its 500 rounds."""
        self._mnist("authors", ("one label",), AUTHORS, equal="rounds", rounds=500, evaluations=20)

    def ablations(self) -> None:
        """One term at a time."""
        self._mnist("ablations", ("one label",), ABLATIONS, seeds=[0])

    def participation(self) -> None:
        """Three of ten shards report; settings are searched for anew."""
        dataset = DATASETS["MNIST"]
        chosen = self._search("MNIST, 3 of 10 report", dataset, "one label", PART, participation=PARTICIPATION)
        self.chosen["MNIST, 3 of 10 report"] = {"one label": chosen}
        self._keep()
        rows = {a: found["settings"] for a, found in chosen.items()}
        self._mnist("participation", ("one label",), rows, participation=PARTICIPATION, evaluations=20)

    def local_steps(self) -> None:
        """FedAvg with one to fifty local steps and as many gradients."""
        rows = {f"{k} steps, lr {lr}": local("fedavg", lr) for k in LOCAL_STEPS for lr in LOCAL_RATES}
        for k in LOCAL_STEPS:
            for lr in LOCAL_RATES:
                rows[f"{k} steps, lr {lr}"]["algorithm"]["steps"] = k
        self._mnist("local steps", ("one label", "IID"), rows, seeds=[0], evaluations=1)

    def contradictions(self) -> None:
        """Shards that contradict each other, at the settings found on Dirichlet(0.1)."""
        found = self._found("Dirichlet(0.1)")
        rows = {a: found[a]["settings"] for a in ("SISA-D", "sync Adam", "FedAvg")}
        partitions = ("by brightness", "one shard's labels shifted", "rotated by 36 degrees each", "recoloured")
        self._mnist("contradictions", partitions, rows, seeds=[0])

    def few_exchanges(self) -> None:
        """Costly links: every algorithm sends twenty vectors a shard, however many gradients it takes meanwhile."""
        for partition, like in (("one label", "one label"), ("IID", "Dirichlet(0.1)")):
            found = self._found(partition, like)
            names = ("SISA", "SISA-D", "sync Adam", "sync SGD", "FedAvg", "SCAFFOLD", "FedAdam")
            rows = {a: found[a]["settings"] for a in names} | {"FedAvg, 50 steps": local("fedavg", 0.1)}
            rows["FedAvg, 50 steps"]["algorithm"]["steps"] = 50
            self._mnist(f"few exchanges/{partition}", (partition,), rows, equal="bytes", rounds=20)

    def languages(self) -> None:
        """Each shard has the words of one language; and the same rows shuffled."""
        write_words(self.out / "languages")
        for partition in ("one language", "IID"):
            self._cell("languages", partition)


def main() -> None:
    parser = argparse.ArgumentParser(prog="heterogeneity", description="The heterogeneity study; run again to go on.")
    parser.add_argument("--preset", choices=PRESETS, default="ninety", help="how much (default: %(default)s minutes)")
    parser.add_argument("--only", choices=STUDIES, metavar="STUDY", help=f"this study alone: {', '.join(STUDIES)}")
    parser.add_argument("--out", type=Path, help="default: runs/heterogeneity-PRESET")
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PISA_RAY_DATA", default)))
    parser.add_argument("--address", help="of a Ray cluster; default: one here")
    options = parser.parse_args()
    out = options.out or Path("runs") / f"heterogeneity-{options.preset}"
    out.mkdir(parents=True, exist_ok=True)
    preset = PRESETS[options.preset]
    if options.only:
        preset = replace(preset, cells={}, studies=(options.only,))
    if "languages" in preset.studies:
        write_words(out / "languages")  # before anything starts, since the package with the words may be missing
    ray.init(address=options.address or "local", log_to_driver=False, include_dashboard=False)
    study = Study(preset, out.resolve(), options.data.resolve())
    study.run()
    print(write_tables(study.out), *draw(study.out), sep="\n")


if __name__ == "__main__":
    main()
