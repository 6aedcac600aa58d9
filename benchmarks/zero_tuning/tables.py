"""From the comparisons' tables to the study's: one Markdown file."""

from __future__ import annotations

from pathlib import Path

from rows import DATASETS
from small_losses import SMALL
from studies.tables import Table, markdown, read_table

#: All that is in the table, with its metric and partitions.
CELLS = DATASETS | SMALL

UNTOUCHED, ADAM, OURS = "untouched", "sync Adam, tuned", "SISA-D, tuned"


def ended(out: Path) -> dict[str, Table]:
    """The rows of the final comparisons that have ended, by data set."""
    found = {name: read_table(out / "final" / name) for name in CELLS}
    return {name: rows for name, rows in found.items() if rows}


def value(row: dict[str, object] | None, metric: str) -> float | None:
    """The mean after the last round: percent of an accuracy, nats of a loss."""
    spread = row[f"last_test_{metric}"] if row is not None else None
    mean = spread["mean"] if isinstance(spread, dict) else None
    return None if mean is None else mean * (100 if metric == "accuracy" else 1)


def write_tables(out: Path) -> Path:
    """Write table.md; returns its path."""
    parts = [
        "Test accuracy in percent (recipes and small cells: test loss) after the last round; mean ± half the range "
        "over seeds. The last columns: how much better (+) or worse (-) the untouched default is than tuned rivals."
    ]
    for name, rows in ended(out).items():
        metric, by = CELLS[name].metric, {(row["partition"], row["algorithm"]): row for row in rows}
        algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
        lines = []
        for partition in CELLS[name].partitions:
            cells = [_shown(by.get((partition, a)), metric) for a in algorithms]
            gaps = [_gap(by, partition, rival, metric) for rival in (ADAM, OURS)]
            lines.append([partition, *cells, *gaps])
        parts += [f"**{name}**", markdown(["", *algorithms, "against sync Adam", "against SISA-D, tuned"], lines)]
    path = out / "table.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path


def gap(by: dict[tuple[str, str], dict[str, object]], partition: str, rival: str, metric: str) -> float | None:
    """How much better the untouched default is than a rival; below 0: worse."""
    ours, theirs = (value(by.get((partition, a)), metric) for a in (UNTOUCHED, rival))
    if ours is None or theirs is None:
        return None
    return theirs - ours if metric == "loss" else ours - theirs


def _gap(by: dict[tuple[str, str], dict[str, object]], partition: str, rival: str, metric: str) -> str:
    found = gap(by, partition, rival, metric)
    return "-" if found is None else f"{found:+.{3 if metric == 'loss' else 1}f}"


def _shown(row: dict[str, object] | None, metric: str) -> str:
    mean = value(row, metric)
    if row is None or mean is None:
        return "-" if row is None or not row["diverged"] else "diverged"
    spread, digits = row[f"last_test_{metric}"], 3 if metric == "loss" else 1
    assert isinstance(spread, dict)
    half = (spread["max"] - spread["min"]) / 2 * (1 if metric == "loss" else 100)
    some = f" ({row['diverged']} of {row['seeds']} diverged)" if row["diverged"] else ""
    return f"{mean:.{digits}f} ± {half:.{digits}f}{some}"
