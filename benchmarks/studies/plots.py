"""Pictures of comparisons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

#: One family, one colour: dual methods, gradient averaging, model averaging.
COLOURS = {"SISA": "#1f5fa8", "SISA-D": "#0b2f5c", "NSISA": "#6fa8dc", "sync Adam": "#c0392b", "sync SGD": "#e59866"}
COLOURS |= {"Adam, remembered": "#8e44ad", "MIFA": "#2e7d4f"}
GREY = "#7f8c8d"


def colour(algorithm: str) -> str:
    return COLOURS.get(algorithm, GREY)


def save(out: Path, figures: dict[str, Callable[[Path], Any]]) -> list[Path]:
    """Draw what there are results for; returns the files.

    Args:
        out: The study's folder.
        figures: Functions from it to a figure or None, by file name.
    """
    plt.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    drawn = []
    for name, function in figures.items():
        figure = function(out)
        if figure is not None:
            path = out / f"{name}.png"
            figure.savefig(path, dpi=150, bbox_inches="tight")
            plt.close(figure)
            drawn.append(path)
    return drawn
