"""The heterogeneity study's small preset runs from end to end, and what has ended is not run again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "heterogeneity"


@pytest.mark.slow
@pytest.mark.ray
def test_the_small_preset_runs_and_resumes(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--preset", "small", "--out", str(tmp_path / "out")]
    tables, runs = [], []
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True, text=True)
        tables.append((tmp_path / "out" / "table.md").read_text())
        runs.append({p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("**/metrics.jsonl")})
    assert tables[0] == tables[1]
    assert runs[0] == runs[1]
    assert "| SISA-D | " in tables[0]
    assert (tmp_path / "out" / "heterogeneity-cells.png").stat().st_size > 1000
    chosen = json.loads((tmp_path / "out" / "settings.json").read_text())["digits"]
    for cell in chosen.values():
        for found in cell.values():
            scores = [tried["validation_accuracy"] for tried in found["tried"]]
            assert len(scores) == 3
            best = max(range(3), key=lambda k: -1 if scores[k] is None else scores[k])
            assert found["settings"] == found["tried"][best]["settings"]
