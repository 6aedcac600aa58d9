"""The small presets of the studies run from end to end, and what has ended is not run again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def twice(study: str, out: Path) -> tuple[str, dict[str, Any]]:
    """Run a study and run it again; returns its tables and what was found for the digits."""
    command = [sys.executable, str(BENCHMARKS / study), "--preset", "small", "--out", str(out)]
    tables, runs = [], []
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True, text=True)
        tables.append((out / "table.md").read_text())
        runs.append({p: p.stat().st_mtime_ns for p in out.glob("**/metrics.jsonl")})
    assert tables[0] == tables[1]
    assert runs[0] == runs[1]
    assert "SISA-D" in tables[0]
    return tables[0], json.loads((out / "settings.json").read_text())["digits"]


def check_search(cell: dict[str, Any], budget: int) -> None:
    """The best of so many settings was taken."""
    for found in cell.values():
        scores = [tried["validation_accuracy"] for tried in found["tried"]]
        assert len(scores) == budget
        best = max(range(budget), key=lambda k: -1 if scores[k] is None else scores[k])
        assert found["settings"] == found["tried"][best]["settings"]


def test_heterogeneity(tmp_path: Path) -> None:
    _, found = twice("heterogeneity", tmp_path)
    assert (tmp_path / "heterogeneity-cells.png").stat().st_size > 1000
    assert found.keys() == {"one label", "IID"}
    for cell in found.values():
        check_search(cell, 3)


def test_participation(tmp_path: Path) -> None:
    tables, found = twice("participation", tmp_path)
    assert (tmp_path / "participation.png").stat().st_size > 1000
    assert found.keys() == {"one label, 3 of 10"}  # one search for all cells, and none for SISA-D
    rivals = {"sync Adam", "Adam, remembered", "FedAvg", "MIFA"}
    assert found["one label, 3 of 10"].keys() == rivals
    check_search(found["one label, 3 of 10"], 2)

    folders = {path.parent.name: path.parent for path in tmp_path.glob("final/digits/one label/*/table.json")}
    last, raced = table(tables, "Test accuracy after the last round"), table(tables, "First evaluated round")
    assert folders.keys() == last.keys() == {"10 of 10", "3 of 10", "1 of 10", "2 of 20"}
    assert raced.keys() == {"1 of 10", "2 of 20"}
    for name, folder in folders.items():
        rows = json.loads((folder / "table.json").read_text())["rows"]
        assert all(row["sample_gradients"] == pytest.approx(12800, rel=0.02) for row in rows), name
        scores = {row["algorithm"]: f"{100 * row['last_test_accuracy']['mean']:.1f}" for row in rows}
        assert scores.keys() == {"SISA-D", *rivals}
        assert scores == last[name]
    for name, column in raced.items():
        assert column["SISA-D"] == first_round(folders[name] / "runs" / "sisa-d" / "one-label" / "seed-0")


def test_zero_tuning(tmp_path: Path) -> None:
    tables, found = twice("zero_tuning", tmp_path)
    assert (tmp_path / "zero-tuning.png").stat().st_size > 1000
    assert found.keys() == {"one label"}  # one search for all partitions
    assert found["one label"].keys() == {"SISA-D", "sync Adam", "sync SGD"}
    check_search(found["one label"], 2)
    lines = [line for line in tables.splitlines() if line.startswith(("| one label", "| IID"))]
    assert len(lines) == 2
    for line in lines:  # the untouched run, SISA-D, Adam and SGD, and two differences
        ours, tuned, adam, _, against_adam, against_ours = (float(c.split()[0]) for c in line.split("|")[2:-1])
        assert against_adam == pytest.approx(ours - adam, abs=0.11)
        assert against_ours == pytest.approx(ours - tuned, abs=0.11)


def test_robustness(tmp_path: Path) -> None:
    """Few rounds of one problem: an automatic start at least does not explode."""
    options = ["--rounds", "60", "--problems", "1", "--many", "2", "--out", str(tmp_path)]
    command = [sys.executable, str(BENCHMARKS / "robustness.py"), *options]
    subprocess.run(command, check=True, capture_output=True, text=True)
    found = {tuple(place): error for *place, error in json.loads((tmp_path / "map.json").read_text())}
    assert len(found) == 4 * 9 * 11
    errors = [error for place, error in found.items() if place[0].startswith("automatic")]
    assert all(error is not None and error < 1 for error in errors)
    assert any(error is None for place, error in found.items() if place[0] == "constant")
    assert {path.name for path in tmp_path.glob("*.png")} == {"robustness-map.png", "robustness-many.png"}


def table(tables: str, title: str) -> dict[str, dict[str, str]]:
    """Column -> algorithm -> text of the first table with a title that begins so."""
    header, _, *lines = tables.split(title)[1].split("\n\n")[1].splitlines()
    names, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in (header, *lines))
    return {name: {row[0]: row[k] for row in rows} for k, name in enumerate(names) if name}


def first_round(run: Path) -> str:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return str(min((row["round"] for row in rows if row["test_accuracy"] >= 0.9), default="-"))
