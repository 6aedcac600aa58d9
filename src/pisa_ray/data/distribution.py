"""The contents of each shard, for files, terminals and reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

#: With more labels, the table shows the most frequent ones of each shard.
LABEL_COLUMNS = 12

#: With more shards, the table leaves out those in the middle.
TABLE_SHARDS = 40


def label_distribution(shards: Sequence[np.ndarray], labels: np.ndarray | None) -> dict[str, Any]:
    """Count the labels of each shard.

    Args:
        shards: Each shard's row numbers.
        labels: The labels of all rows, shape (n,), or None if they are unknown; real numbers are not counted.

    Returns:
        The content of partition.json: {"shards": [{"rows": n, "labels": {label: count}}, ...]}, labels as text, in
        order; without labels if these are not counted.
    """
    if labels is None or labels.dtype.kind == "f":
        return {"shards": [{"rows": len(rows)} for rows in shards]}
    described = []
    for rows in shards:
        pairs = zip(*np.unique(labels[rows], return_counts=True), strict=True)
        described.append({"rows": len(rows), "labels": {str(value): int(count) for value, count in pairs}})
    return {"shards": described}


def distribution_table(distribution: dict[str, Any]) -> str:
    """Write a distribution as a Markdown table that also reads well as plain text.

    Args:
        distribution: From `label_distribution`.

    Returns:
        One line per shard with its rows and its labels' counts, or with many labels the most frequent ones. Of many
        shards, those in the middle are left out. The last line has the totals.
    """
    shards = distribution["shards"]
    labels = [shard.get("labels", {}) for shard in shards]
    names = _label_names(labels)
    total = sum(map(Counter, labels), Counter[str]())
    entries = [(str(i), shard["rows"], counts) for i, (shard, counts) in enumerate(zip(shards, labels, strict=True))]
    entries.append(("all", sum(shard["rows"] for shard in shards), total))
    if len(names) <= LABEL_COLUMNS:
        head = ["shard", "rows", *names]
        lines = [[name, str(rows), *(str(counts.get(label, 0)) for label in names)] for name, rows, counts in entries]
    else:
        head = ["shard", "rows", "labels", "commonest (rows)"]
        lines = [[name, str(rows), str(len(counts)), _commonest(counts)] for name, rows, counts in entries]
    if len(shards) > TABLE_SHARDS:
        half = TABLE_SHARDS // 2
        lines = [*lines[:half], ["..."] * len(head), *lines[-half - 1 :]]
    widths = [max(2, *(len(line[i]) for line in [head, *lines])) for i in range(len(head))]  # room for "-:"
    rule = ["-" * (width - 1) + ":" for width in widths]
    return "\n".join(_table_line(line, widths) for line in [head, rule, *lines])


def _label_names(labels: list[dict[str, int]]) -> list[str]:
    names = {label for counts in labels for label in counts}
    return sorted(names, key=lambda name: (0, int(name), "") if name.lstrip("-").isdecimal() else (1, 0, name))


def _commonest(counts: dict[str, int]) -> str:
    top = sorted(counts.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{label} ({count})" for label, count in top)


def _table_line(cells: list[str], widths: list[int]) -> str:
    return "| " + " | ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
