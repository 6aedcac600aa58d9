"""The study of runs with no optimizer setting at all; `python benchmarks/zero_tuning --help`.

1. search   for each data set, on its first partition and a seed of its own: the settings of SISA-D, synchronous Adam
            and synchronous SGD, each from five, by held-out rows (10 % of each shard) after the last round. What was
            found, and all that was tried, is in settings.json.
2. final    on other seeds, on all partitions: nothing set (SISA-D; for the GPT that is NSISA), and what was found.

The small cells that are judged by a loss of their own (small_losses.py) do both in one process, without Ray.

All compute as many gradients of rows, in as many exchanges. Rivals may use the schedule that the untouched run has.
Everything is a `pisa-ray compare` in a folder of its own; what has ended is not run again when the script is.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where studies is

from character_gpt import write_characters
from plots import draw
from rows import DATASETS, PRESETS, Dataset, Preset
from small_losses import SMALL, run_small
from studies.study import Study, command_line, start_ray
from tables import write_tables


class ZeroTuning(Study):
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
        for name in self.preset.datasets:
            if name in SMALL:
                run_small(name, self.out, self.seeds, self.preset.search_seeds[0])
                continue
            dataset = DATASETS[name]
            if dataset.made:
                write_characters(self.data / "recipes", self.out / "recipes")
            self._run(name, dataset)

    def _run(self, name: str, dataset: Dataset) -> None:
        base = dataset.base
        if dataset.made:  # absolute, so that they are not looked for among the data sets
            base = base | {
                "data": {k: str(self.out / v) if k in ("train", "test") else v for k, v in base["data"].items()}
            }
        first, *_ = dataset.partitions
        tried = {a: candidates[: self.preset.budget] for a, candidates in dataset.candidates.items()}
        found = self.search(
            (name, first), base, {first: dataset.partitions[first]}, tried, score=f"validation_{dataset.metric}"
        )
        tuned = {f"{a}, tuned": settings for a, settings in found.items()}
        self.compare(
            f"final/{name}", base, dataset.partitions, dataset.untouched | tuned, score=f"test_{dataset.metric}"
        )


def main() -> None:
    options = command_line("zero_tuning", PRESETS)
    start_ray(options)
    ZeroTuning(PRESETS[options.preset], options.out, options.data).run()
    print(write_tables(options.out), *draw(options.out), sep="\n")


if __name__ == "__main__":
    main()
