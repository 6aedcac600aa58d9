"""The heterogeneity study: search, final runs, studies, tables and plots; `python benchmarks/heterogeneity --help`.

1. search   every algorithm's settings, on one seed, at equal gradients, by the accuracy on held-out rows (10 % of each
            shard); the best are kept in settings.json with all that was tried
2. final    the chosen settings on other seeds: test accuracy, and the worst shard's on its held-out rows
3. studies  the paper's own settings, ablations, partial participation, local steps, shards that contradict each other

Everything is a `pisa-ray compare` in a folder of its own; what has ended is not run again when the script is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where studies is

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
    Preset,
    Row,
)
from studies.rows import local
from studies.study import Study, begin
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
        super().__init__(out, data, preset.seeds)
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
            self.search((name, partition), dataset.base, partitions, candidates)
        found = self.chosen[name][other or partition]
        rows = {a: found[a]["settings"] for a in candidates}
        self.compare(f"final/{name}/{partition}", dataset.base, partitions, rows)

    # Studies, on MNIST

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

    def contradictions(self) -> None:
        """Shards that contradict each other, at the settings found on Dirichlet(0.1)."""
        found = self.chosen["MNIST"]["Dirichlet(0.1)"]
        rows = {a: found[a]["settings"] for a in ("SISA-D", "sync Adam", "FedAvg")}
        partitions = ("by brightness", "one shard's labels shifted", "rotated by 36 degrees each", "recoloured")
        self._mnist("contradictions", partitions, rows, seeds=(0,))

    def few_exchanges(self) -> None:
        """Costly links: every algorithm sends twenty vectors a shard, however many gradients it takes meanwhile."""
        for partition, like in (("one label", "one label"), ("IID", "Dirichlet(0.1)")):
            found = self.chosen["MNIST"].get(partition, self.chosen["MNIST"][like])
            names = ("SISA", "SISA-D", "sync Adam", "sync SGD", "FedAvg", "SCAFFOLD", "FedAdam")
            rows = {a: found[a]["settings"] for a in names} | {"FedAvg, 50 steps": local("fedavg", 0.1)}
            rows["FedAvg, 50 steps"]["algorithm"]["steps"] = 50
            self._mnist(f"few exchanges/{partition}", (partition,), rows, equal="bytes", rounds=20)


def main() -> None:
    preset, out, data = begin("heterogeneity", PRESETS)
    Heterogeneity(preset, out, data).run()
    print(write_tables(out), *draw(out), sep="\n")


if __name__ == "__main__":
    main()
