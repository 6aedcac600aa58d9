"""The participation study: few, one-sided shards report in a round; `python benchmarks/participation --help`.

A cell is a data set, a partition, and how many of how many shards report: 10, 5, 3 and 1 of 10, 5 of 100 (mini-batches
of 16). All methods compute as many gradients of rows in all cells of a data set, so where fewer report there are more
rounds; FedAvg and its kin take ten local steps a round and get a tenth of the rounds.

1. search   each rival's settings, on a seed of its own, by the accuracy on held-out rows (10 % of each shard) after the
            last round, as many settings for each: once for a data set, where 3 of 10 shards of one label report; in the
            preset `full` anew in every cell. What was found, and all that was tried, is in settings.json.
2. final    the chosen settings on other seeds

SISA-D is not searched for: its sigma follows how often a shard reports in the run, by a rule (rows.py) that was made
with a look at held-out rows of MNIST and CIFAR-10, one label. Where rivals keep the setting of 3 of 10, part of a
distance may be that theirs does not follow the participation; `full` tells that apart.

"Adam, remembered" is synchronous Adam on the mean of everybody's last gradient. Where one or two shards of one label
report, MNIST is evaluated often: the tables have the first evaluated round with a test accuracy of 0.95.

Everything is a `pisa-ray compare` in a folder of its own; what has ended is not run again when the script is.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where studies is

from plots import draw
from rows import EVALUATIONS, OFTEN, OURS, PRESETS, TUNED, Cell, Preset, Row, raced
from studies.rows import BASES
from studies.study import Study, command_line, start_ray
from tables import write_tables


class Participation(Study):
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
        for name, cells in self.preset.cells.items():
            found = {} if self.preset.every_cell else self._search(name, TUNED)
            for cell in cells:
                rivals = self._search(name, cell) if self.preset.every_cell else found
                base = BASES[name]
                self.compare(
                    f"final/{name}/{cell.partition}/{cell.name}",
                    base,
                    cell.partitions,
                    {OURS: cell.ours(base), **rivals},
                    evaluations=OFTEN if raced(name, cell.partition, cell.reporting) else EVALUATIONS,
                    **cell.changes(base),
                )

    def _search(self, name: str, cell: Cell) -> dict[str, Row]:
        base, place = BASES[name], (name, f"{cell.partition}, {cell.name}")
        return self.search(place, base, cell.partitions, self.preset.candidates, **cell.changes(base))


def main() -> None:
    options = command_line("participation", PRESETS)
    start_ray(options)
    Participation(PRESETS[options.preset], options.out, options.data).run()
    print(write_tables(options.out), *draw(options.out), sep="\n")


if __name__ == "__main__":
    main()
