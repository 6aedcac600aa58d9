"""From the comparisons' tables to the study's: one Markdown file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from rows import TARGETS, raced
from studies.rows import BASES, PARTITIONS
from studies.tables import Table, curves, markdown, percent, read_table, spread

#: Share of a run's gradients after which there is a table too, beside that of the last round.
EARLY = 0.25

Folders = dict[str, Path]


def ended(out: Path) -> dict[tuple[str, str], Folders]:
    """The folders of the final runs that have ended, by (data set, partition), then by the name of the cell."""
    found: dict[tuple[str, str], Folders] = {}
    folders = (path.parent for path in (out / "final").glob("*/*/*/table.json"))
    for folder in sorted(folders, key=_order):
        found.setdefault((folder.parts[-3], folder.parts[-2]), {})[folder.name] = folder
    return found


def _order(folder: Path) -> tuple[int, ...]:
    dataset, partition, name = folder.parts[-3:]
    reporting, shards = _numbers(name)
    return list(BASES).index(dataset), list(PARTITIONS).index(partition), shards, -reporting


def _numbers(name: str) -> tuple[int, int]:
    reporting, shards = name.split(" of ")
    return int(reporting), int(shards)


def _last(folders: Folders, key: str) -> str:
    by = {(name, row["algorithm"]): row for name, folder in folders.items() for row in read_table(folder)}
    return _table(folders, lambda name, algorithm: percent(by.get((name, algorithm)), key))


def _early(folders: Folders) -> str:
    runs = {name: curves(folder) for name, folder in folders.items()}

    def text(name: str, algorithm: str) -> str:
        found = runs[name].get(algorithm, [])
        return spread([early(rows) for rows in found]) if found else "-"

    return _table(folders, text)


def early(rows: Table) -> float:
    """Test accuracy at the last evaluation in the first quarter of a run's gradients; at the first if there is none."""
    until = EARLY * rows[-1]["sample_gradients"]
    within = [row for row in rows if row["sample_gradients"] <= until] or rows[:1]
    return float(within[-1]["test_accuracy"])


def _races(folders: Folders, target: float) -> str:
    runs = {name: curves(folder) for name, folder in folders.items()}

    def text(name: str, algorithm: str) -> str:
        return ", ".join(str(first_round(rows, target) or "-") for rows in runs[name].get(algorithm, [])) or "-"

    return _table(folders, text)


def first_round(rows: Table, target: float) -> int | None:
    """The first evaluated round with such a test accuracy."""
    return next((int(row["round"]) for row in rows if row["test_accuracy"] >= target), None)


def _table(folders: Folders, text: Callable[[str, str], str]) -> str:
    """A line an algorithm, a column a cell."""
    algorithms = _unique(row["algorithm"] for folder in folders.values() for row in read_table(folder))
    return markdown(["", *folders], [[a, *(text(name, a) for name in folders)] for a in algorithms])


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def write_tables(out: Path) -> Path:
    """Write table.md; returns its path."""
    parts = ["Percent; mean ± half the range over seeds. Columns: how many of how many shards report in a round."]
    for (dataset, partition), folders in ended(out).items():
        where = f"{dataset}, {partition}"
        parts += [f"Test accuracy after the last round, {where}:", _last(folders, "last_test_accuracy")]
        parts += [f"Test accuracy after a quarter of the gradients, {where}:", _early(folders)]
        parts += [f"Worst shard, {where}:", _last(folders, "last_validation_worst_shard_accuracy")]
        few = {name: folder for name, folder in folders.items() if raced(dataset, partition, _numbers(name)[0])}
        if few:
            target = TARGETS[dataset]
            parts += [
                f"First evaluated round with test accuracy {target}, each seed, {where} (a round of FedAvg, FedProx, "
                "SCAFFOLD and MIFA has ten local steps):",
                _races(few, target),
            ]
    path = out / "table.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path
