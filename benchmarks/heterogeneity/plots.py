"""The study's pictures: all cells, FedAvg over local steps, and curves where few shards report."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from studies.plots import GREY, colour, save
from studies.tables import curves, read_table
from tables import final_cells


def draw(out: Path) -> list[Path]:
    """Draw what there are results for; returns the files."""
    figures = {"cells": _cells, "local-steps": _local_steps, "participation": _participation}
    return save(out, {f"heterogeneity-{name}": function for name, function in figures.items()})


def _cells(out: Path) -> Any:
    """A panel a cell, a line an algorithm: dot for the mean, bar from the smallest to the largest seed."""
    cells = [(name, p.name, read_table(p)) for name, folders in final_cells(out).items() for p in folders]
    if not cells:
        return None
    algorithms = list(dict.fromkeys(row["algorithm"] for *_, rows in cells for row in rows))[::-1]
    columns = min(5, len(cells))
    lines = -(-len(cells) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(2.3 * columns, 0.21 * len(algorithms) * lines + 0.7), sharey=True, squeeze=False
    )
    for ax in axes.flat[len(cells) :]:
        ax.axis("off")
    for ax, (dataset, partition, rows) in zip(axes.flat, cells, strict=False):
        for row in rows:
            y, value = algorithms.index(row["algorithm"]), row["last_test_accuracy"]
            if value["mean"] is None:
                where = ("axes fraction", "data")
                ax.annotate("diverged", (0.02, y), xycoords=where, fontsize=6, color=GREY, va="center")
                continue
            mean, least, most = (100 * value[k] for k in ("mean", "min", "max"))
            ax.plot([least, most], [y, y], color=colour(row["algorithm"]), lw=1)
            ax.plot(mean, y, "o", ms=4, color=colour(row["algorithm"]))
        ax.set_title(f"{dataset}, {partition}", fontsize=8, loc="left")
        ax.grid(axis="x", color="#e5e5e5", lw=0.6)
        ax.set_axisbelow(True)
        ax.set_yticks(range(len(algorithms)), algorithms)
        ax.tick_params(length=0)
    figure.supxlabel("test accuracy, %", fontsize=8)
    figure.tight_layout()
    return figure


def _local_steps(out: Path) -> Any:
    """Accuracy over the number of local steps, and so over fewer and fewer exchanges."""
    rows = read_table(out / "studies" / "local steps")
    if not rows:
        return None
    best: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        steps, value = int(row["algorithm"].split()[0]), row["last_test_accuracy"]["mean"] or 0.0
        found = best[row["partition"]]
        found[steps] = max(found.get(steps, 0.0), 100 * value)
    figure, ax = plt.subplots(figsize=(4.2, 2.6))
    for (partition, found), shade in zip(best.items(), ("#c0392b", "#1f5fa8"), strict=False):
        ax.plot(list(found), list(found.values()), "o-", color=shade, ms=4, lw=1.4, label=partition)
    ax.set_xscale("log")
    steps = sorted({k for found in best.values() for k in found})
    ax.set_xticks(steps, [str(k) for k in steps])
    ax.minorticks_off()
    ax.set_xlabel("local steps between two exchanges, at as many gradients in all")
    ax.set_ylabel("test accuracy, %")
    ax.legend(frameon=False)
    ax.grid(color="#e5e5e5", lw=0.6)
    return figure


def _participation(out: Path) -> Any:
    """Test accuracy over the gradients computed, a thin line a seed."""
    folder = out / "studies" / "participation"
    if not read_table(folder):
        return None
    figure, ax = plt.subplots(figsize=(6.2, 3.0))
    for k, (algorithm, runs) in enumerate(curves(folder).items()):
        for j, rows in enumerate(runs):
            x, y = ([row[key] for row in rows] for key in ("sample_gradients", "test_accuracy"))
            ax.plot(x, [100 * v for v in y], color=f"C{k}", lw=1.3, alpha=0.9, label=algorithm if j == 0 else None)
    ax.set_xlabel("gradients of single rows")
    ax.set_ylabel("test accuracy, %")
    ax.grid(color="#e5e5e5", lw=0.6)
    ax.legend(frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left")
    return figure
