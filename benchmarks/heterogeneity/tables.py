"""From the comparisons' tables to the study's: one Markdown file."""

from __future__ import annotations

import json
from pathlib import Path

from rows import DATASETS
from studies.rows import PARTITIONS
from studies.tables import markdown, percent, read_table

#: Evaluations of a run from which on it is worth a look at the way there.
OFTEN = 10


def final_cells(out: Path) -> dict[str, list[Path]]:
    """The folders of the final runs that have ended, by data set, in the order of the lists in rows.py."""
    found = {name: [out / "final" / name / partition for partition in PARTITIONS] for name in DATASETS}
    return {name: ended for name, folders in found.items() if (ended := [p for p in folders if read_table(p)])}


def _final(out: Path) -> str:
    parts = []
    for dataset, partitions in final_cells(out).items():
        by = {(p.name, row["algorithm"]): row for p in partitions for row in read_table(p)}
        algorithms = list(dict.fromkeys(a for _, a in by))
        for what, key in (
            ("Test accuracy", "last_test_accuracy"),
            ("Worst shard", "last_validation_worst_shard_accuracy"),
        ):
            lines = [[a, *(percent(by.get((p.name, a)), key) for p in partitions)] for a in algorithms]
            parts.append(f"{what}, {dataset}:\n\n" + markdown(["", *(p.name for p in partitions)], lines))
    return "\n\n".join(parts)


def _study(out: Path, name: str) -> str:
    rows = read_table(out / "studies" / name)
    partitions, algorithms = (list(dict.fromkeys(row[k] for row in rows)) for k in ("partition", "algorithm"))
    by = {(row["partition"], row["algorithm"]): row for row in rows}
    key = "last_test_accuracy"
    lines = [
        [a, str(by[partitions[0], a]["rounds"]), *(percent(by.get((p, a)), key) for p in partitions)]
        for a in algorithms
    ]
    return f"{name[0].upper() + name[1:]}, MNIST, test accuracy:\n\n" + markdown(["", "rounds", *partitions], lines)


def _curves(out: Path, name: str) -> str:
    """The score of every run of a study at some of its rounds, where it was evaluated often enough."""
    lines = []
    for path in sorted((out / "studies" / name / "runs").glob("*/*/seed-*/metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        if len(rows) >= OFTEN:
            chosen = [rows[max(int(len(rows) * share) - 1, 0)] for share in (0.15, 0.3, 0.5, 0.75, 1)]
            points = [f"{row['round']}: {100 * row['test_accuracy']:.1f}" for row in chosen]
            lines.append(["/".join(path.parts[-4:-1]), *points])
    return f"{name}, round: test accuracy\n\n" + markdown(["", *[""] * 5], lines) if lines else ""


def write_tables(out: Path) -> Path:
    """Write table.md; returns its path."""
    folders = [path.parent for path in (out / "studies").glob("**/table.json")]
    studies = sorted(str(folder.relative_to(out / "studies")) for folder in folders)
    text = "\n\n".join(
        [_final(out), *(part for name in studies for part in (_study(out, name), _curves(out, name)) if part)]
    )
    path = out / "table.md"
    path.write_text(f"Percent; mean ± half the range over seeds.\n\n{text}\n")
    return path
