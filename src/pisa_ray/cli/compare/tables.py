"""Writes the table as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pisa_ray.cli.report.text import short, size

Row = Mapping[str, Any]


def cells_of(row: Row) -> list[str]:
    """Return a row as text, in the order of `headings`."""
    return [
        _seeds(row),
        *(short(row[key]) for key in ("rounds", "sample_gradients")),
        size(row["bytes_sent"]) if row["bytes_sent"] else "-",
        short(row["vectors_per_shard"]),
        *(spread(row[f"{kind}_{key}"], _absent(row)) for kind, key in _kinds(row)),
    ]


def headings(rows: Sequence[Row]) -> list[str]:
    """Return the headings of the columns after the algorithm's, which are the same for all rows."""
    kinds = {"last": "last {}", "best": "best {} over rounds"}
    named = [kinds[kind].format(key.replace("_", " ")) for kind, key in _kinds(rows[0])]
    return ["seeds", "rounds", "sample gradients", "bytes sent", "vectors a shard", *named]


def spread(value: Mapping[str, float | None], absent: str = "-") -> str:
    """Return a mean with its spread as text, or `absent` if there is no mean.

    Example:
        >>> spread({"mean": 0.5, "std": 0.25, "min": 0.25, "max": 0.75})
        '0.5000 ± 0.2500 (0.2500 to 0.7500)'
    """
    mean, std, low, high = (value[key] for key in ("mean", "std", "min", "max"))
    if mean is None:
        return absent
    return f"{mean:.4f}" + ("" if std is None else f" ± {std:.4f} ({low:.4f} to {high:.4f})")


def markdown(rows: Sequence[Row], score: str, equal: str) -> str:
    """Return a table per partition, aligned so that the text can be read as it is."""
    work = {"rounds": "rounds", "bytes": "vectors sent", "gradients": "gradients"}[equal]
    parts = [
        f"{score.replace('_', ' ')} at equal {work}: mean ± standard deviation (smallest to largest) over the seeds "
        "that came to their end.\n"
    ]
    for partition in dict.fromkeys(row["partition"] for row in rows):
        own = [row for row in rows if row["partition"] == partition]
        lines = [["algorithm", *headings(rows)], *([row["algorithm"], *cells_of(row)] for row in own)]
        lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines]
        text.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
        parts.append(f"## {partition}\n\n" + "\n".join(text) + "\n")
    return "\n".join(parts)


def comma_separated(rows: Sequence[Row]) -> str:
    """Return a line per row, at full precision, with a mean and its spread in columns of their own."""
    flat = [_flat(row) for row in rows]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue()


def _kinds(row: Row) -> list[tuple[str, str]]:
    found = [key.partition("_") for key, value in row.items() if isinstance(value, Mapping)]
    return [(kind, key) for kind, _, key in found]


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= {f"{key}_{name}": x for name, x in value.items()} if isinstance(value, Mapping) else {key: value}
    return flat


def _absent(row: Row) -> str:
    return "diverged" if row["diverged"] else "failed" if row["failed"] else "-"


def _seeds(row: Row) -> str:
    lost = [f"{row[kind]} {kind}" for kind in ("diverged", "failed") if row[kind]]
    return f"{row['seeds']}" + (f" ({', '.join(lost)})" if lost else "")
