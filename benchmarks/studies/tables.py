"""Comparisons as Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Table = list[dict[str, Any]]


def read_table(folder: Path, part: str = "rows") -> Table:
    """The rows (or the cells) of a comparison that has ended; else none."""
    found: Table = json.loads((folder / "table.json").read_text())[part] if (folder / "table.json").exists() else []
    return found


def curves(folder: Path) -> dict[str, list[Table]]:
    """The evaluated rounds of the runs that came to their end, by algorithm, in the order of the seeds."""
    found: dict[str, list[Table]] = {}
    for cell in read_table(folder, "cells"):
        if cell["status"] == "finished":
            lines = (folder / cell["run"] / "metrics.jsonl").read_text().splitlines()
            found.setdefault(cell["algorithm"], []).append([json.loads(line) for line in lines])
    return found


def spread(values: list[float]) -> str:
    """Percent: the mean, and half the range where there are several."""
    return _shown(sum(values) / len(values), min(values), max(values), len(values))


def percent(row: dict[str, Any] | None, key: str) -> str:
    """Mean and half the range over the seeds that came to their end; how many did not."""
    if row is None or row[key]["mean"] is None:
        return "-" if row is None or not row["diverged"] else "diverged"
    text = _shown(*(row[key][part] for part in ("mean", "min", "max")), row["measured"])
    return text + (f" ({row['diverged']} of {row['seeds']} diverged)" if row["diverged"] else "")


def _shown(mean: float, least: float, most: float, several: int) -> str:
    return f"{100 * mean:.1f}" + (f" ± {50 * (most - least):.1f}" if several > 1 else "")


def markdown(names: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(names)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [names, rule, *lines])
