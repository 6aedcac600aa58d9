"""The heterogeneity study: search, final runs, studies, tables and plots; `python benchmarks/heterogeneity --help`.

1. search   every algorithm's settings, on seeds of their own, at equal gradients, by the mean accuracy on held-out rows
            (10 % of each shard); the best are kept in settings.json with all that was tried
2. final    the chosen settings on other seeds: test accuracy, and the worst shard's on its held-out rows
3. studies  the paper's own settings, ablations, partial participation, local steps, shards that contradict each other,
            a language per shard

Everything is a `pisa-ray compare` in a folder of its own; what has ended is not run again when the script is.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where studies is

from languages import write_words
from plots import draw
from rows import (
    ABLATIONS,
    AUTHORS,
    DATASETS,
    DUAL_STEPS,
    LOCAL_RATES,
    LOCAL_STEPS,
    PART,
    PARTICIPATION,
    PRESETS,
    STUDIES,
    Dataset,
    Preset,
    Row,
)
from studies.rows import local
from studies.study import Study, command_line, start_ray
from tables import write_tables

from pisa_ray.cli.compare import Comparison


class Heterogeneity(Study):
    """All of it.

    Args:
        preset: What is run.
        out: The folder.
        data: Where the data sets' folders are.
    """

    def __init__(self, preset: Preset, out: Path, data: Path) -> None:
        super().__init__(out, data, preset.seeds, preset.search_seeds)
        self.preset = preset

    def run(self) -> None:
        for name, partitions in self.preset.cells.items():
            for partition in partitions:
                self._cell(name, partition)
        for study in self.preset.studies:
            getattr(self, study.replace(" ", "_"))()

    def _cell(self, name: str, partition: str) -> None:
        dataset = DATASETS[name]
        other = self.preset.settings_of.get(name, {}).get(partition)
        candidates, partitions = self.preset.candidates(name, partition), {partition: dataset.partition(partition)}
        if other is None:
            self.search((name, partition), self._base(dataset), partitions, candidates)
        found = self.chosen[name][other or partition]
        rows = {a: found[a]["settings"] for a in candidates}
        seeds = self.preset.seeds_of.get((name, partition))
        self.compare(f"final/{name}/{partition}", self._base(dataset), partitions, rows, seeds=seeds)

    def _base(self, dataset: Dataset) -> Row:
        """Keys of a training file, with the paths of files that the study has made."""
        if not dataset.made:
            return dataset.base
        data = {k: str(self.out / v) if k in ("train", "test") else v for k, v in dataset.base["data"].items()}
        return {**dataset.base, "data": data}

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
        where = {p: dataset.partition(p) for p in partitions}
        return self.compare(f"studies/{place}", dataset.base, where, rows, **more)

    def authors(self) -> None:
        """The settings of the paper's code, for its 500 rounds."""
        self._mnist("authors", ("one label",), AUTHORS, equal="rounds", rounds=500, evaluations=20)

    def ablations(self) -> None:
        """One term at a time."""
        self._mnist("ablations", ("one label",), ABLATIONS, seeds=(0,))

    def participation(self) -> None:
        """Three of ten shards report; settings are searched for anew."""
        dataset = DATASETS["MNIST"]
        place, partitions = ("MNIST, 3 of 10 report", "one label"), {"one label": dataset.partition("one label")}
        rows = self.search(place, dataset.base, partitions, PART, participation=PARTICIPATION)
        self._mnist("participation", ("one label",), rows, participation=PARTICIPATION, evaluations=20)

    def local_steps(self) -> None:
        """FedAvg with one to fifty local steps and as many gradients."""
        rows = {f"{k} steps, lr {lr}": local("fedavg", lr) for k in LOCAL_STEPS for lr in LOCAL_RATES}
        for k in LOCAL_STEPS:
            for lr in LOCAL_RATES:
                rows[f"{k} steps, lr {lr}"]["algorithm"]["steps"] = k
        self._mnist("local steps", ("one label", "IID"), rows, seeds=(0,), evaluations=1)

    def dual_local_steps(self) -> None:
        """Dual methods with one and five local steps: as many gradients, and as many vectors sent."""
        for equal, rounds in (("gradients", 200), ("bytes", 40)):
            place = f"dual local steps/equal {equal}"
            self._mnist(place, ("one label", "IID"), DUAL_STEPS, equal=equal, rounds=rounds, evaluations=1)

    def contradictions(self) -> None:
        """Shards that contradict each other, at the settings found on Dirichlet(0.1)."""
        found = self._found("Dirichlet(0.1)")
        rows = {a: found[a]["settings"] for a in ("SISA-D", "sync Adam", "FedAvg")}
        partitions = ("by brightness", "one shard's labels shifted", "rotated by 36 degrees each", "recoloured")
        self._mnist("contradictions", partitions, rows, seeds=(0,))

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
    options = command_line("heterogeneity", PRESETS, STUDIES)
    preset = PRESETS[options.preset]
    if options.only:
        preset = replace(preset, cells={}, studies=(options.only,))
    if "languages" in preset.studies:
        write_words(options.out / "languages")  # before anything starts: the package with the words may be missing
    start_ray(options)
    Heterogeneity(preset, options.out, options.data).run()
    print(write_tables(options.out), *draw(options.out), sep="\n")


if __name__ == "__main__":
    main()
