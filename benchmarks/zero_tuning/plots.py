"""The study's picture: how far tuned rivals are from the untouched default, a dot for each cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from studies.plots import colour, save
from tables import ADAM, CELLS, OURS, UNTOUCHED, ended, value

#: Panels in a row of the picture.
COLUMNS = 4


def draw(out: Path) -> list[Path]:
    """Draw what there are results for; returns the files."""
    return save(out, {"zero-tuning": _cells})


def _cells(out: Path) -> Any:
    """A panel a data set, a line a partition, a dot a method."""
    found = ended(out)
    if not found:
        return None
    rows_of_panels = -(-len(found) // COLUMNS)
    figure, axes = plt.subplots(rows_of_panels, COLUMNS, figsize=(2.7 * COLUMNS, 1.9 * rows_of_panels), squeeze=False)
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    dots: dict[str, Any] = {}
    for ax, (name, rows) in zip(axes.flat, found.items(), strict=False):
        dataset = CELLS[name]
        by = {(row["partition"], row["algorithm"]): row for row in rows}
        for y, partition in enumerate(reversed(dataset.partitions)):
            for algorithm, marker in ((OURS, "o"), (ADAM, "o"), (UNTOUCHED, "D")):
                x = value(by.get((partition, algorithm)), dataset.metric)
                if x is not None:
                    hollow = algorithm == OURS
                    tint = colour("SISA-D" if algorithm == UNTOUCHED else algorithm.partition(",")[0])
                    (dots[algorithm],) = ax.plot(
                        x, y, marker, color=tint, mfc="none" if hollow else tint, ms=5, ls="none"
                    )
        ax.set_yticks(range(len(dataset.partitions)), list(reversed(dataset.partitions)), fontsize=7)
        ax.set_ylim(-0.5, len(dataset.partitions) - 0.5)
        unit = "test loss" if dataset.metric == "loss" else "test accuracy, %"
        ax.set_title(f"{name}: {unit}", fontsize=7, loc="left")
        ax.grid(color="#e5e5e5", lw=0.6)
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.legend(dots.values(), dots.keys(), frameon=False, loc="upper center", ncols=len(dots), fontsize=8)
    return figure
