"""The study's picture: accuracy over gradients, a panel for each number of shards that report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from studies.plots import colour, save
from studies.tables import curves
from tables import ended

#: Methods that share a colour differ in their lines.
LINES = {"FedProx": "--", "SCAFFOLD": ":"}


def draw(out: Path) -> list[Path]:
    """Draw what there are results for; returns the files."""
    return save(out, {"participation": _curves})


def _curves(out: Path) -> Any:
    """A row of panels a data set and partition, a column a cell, a thin line a seed."""
    found = ended(out)
    if not found:
        return None
    columns = list(dict.fromkeys(name for folders in found.values() for name in folders))
    columns.sort(key=lambda name: (int(name.split()[2]), -int(name.split()[0])))
    figure, axes = plt.subplots(
        len(found),
        len(columns),
        figsize=(2.1 * len(columns), 1.9 * len(found) + 0.5),
        sharex="row",
        sharey="row",
        squeeze=False,
    )
    lines: dict[str, Any] = {}
    for line, (where, folders) in zip(axes, found.items(), strict=True):
        for ax, name in zip(line, columns, strict=True):
            if name not in folders:
                ax.axis("off")
                continue
            for algorithm, runs in curves(folders[name]).items():
                for rows in runs:
                    x, y = ([row[key] for row in rows] for key in ("sample_gradients", "test_accuracy"))
                    (lines[algorithm],) = ax.plot(
                        [v / 1000 for v in x],
                        [100 * v for v in y],
                        LINES.get(algorithm, "-"),
                        color=colour(algorithm),
                        lw=1.1,
                        alpha=0.85,
                    )
            ax.set_title(f"{', '.join(where)}: {name}", fontsize=7, loc="left")
            ax.grid(color="#e5e5e5", lw=0.6)
    figure.supxlabel("gradients of single rows, thousands", fontsize=8)
    figure.supylabel("test accuracy, %", fontsize=8)
    figure.legend(lines.values(), lines.keys(), frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure
