"""pisa-ray tune: files that are refused, and a search from its file to the best training file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pisa_ray.cli.config import load
from pisa_ray.cli.main import main
from pisa_ray.cli.search import Search
from pisa_ray.cli.tune import check

EXAMPLE = Path(__file__).parents[2] / "examples" / "tune" / "digits.yaml"
FILE: dict[str, Any] = {
    "name": "little",
    "base": {
        "data": {"dataset": "digits", "validation": 0.2},
        "partition": {"kind": "labels_per_shard", "shards": 5, "labels": 2},
        "model": {"kind": "mlp", "hidden": [8]},
        "algorithm": {"kind": "sisa", "rho": 30},
        "rounds": 20,
        "batch_size": 8,
    },
    "space": {"algorithm.sigma": {"loguniform": [0.1, 10]}, "batch_size": {"choice": [8, 16]}},
    "samples": 3,
    "every": 5,
}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(**changes: Any) -> str:
        (tmp_path / "t.yaml").write_text(yaml.safe_dump({**FILE, **changes}))
        return str(tmp_path / "t.yaml")

    return write


def base(**changes: Any) -> dict[str, Any]:
    return {**FILE["base"], **changes}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"smples": 3}, "smples is not a setting: the nearest one is samples."),
        ({"space": {}}, "space is empty, but there is nothing to search then"),
        (
            {"space": {"batch_size": {"choice": []}}},
            "space.batch_size.choice is [], but it must be a list of at",
        ),
        (
            {"space": {"batch_size": {}}},
            "space.batch_size.choice is missing, but there must be one of choice, grid, uniform,",
        ),
        (
            {"space": {"batch_size": {"uniform": [2, 1]}}},
            "space.batch_size.uniform is [2.0, 1.0], but it must be two numbers, the smaller one first.",
        ),
        ({"space": {"batch_sise": {"choice": [8]}}}, "batch_sise is not a setting: the nearest one is batch_size."),
        ({"space": {"algorithm.sigma": {"choice": [-1]}}}, "algorithm.sigma is -1, but it must be a number above 0"),
        ({"space": {"rounds.x": {"choice": [1]}}}, "space.rounds.x: rounds is 20 and has no keys of its own."),
        ({"metric": "validation_f1"}, "metric is validation_f1, but the runs do not measure it: use one of"),
        ({"metric": "test_accuracy"}, "metric is of test rows, by which nothing should be chosen"),
        ({"base": base(data={"dataset": "digits"})}, "or set base.data.validation."),
        (
            {"base": base(rounds=0)},
            "rounds is 0, but it must be a whole number of at least 1 and at most 1,000,000,000.",
        ),
        ({"scheduler": "pbt"}, "scheduler is 'pbt', but it must be 'asha'"),
    ],
)
def test_what_is_refused_before_anything_starts(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], sentence: str
) -> None:
    assert main(["tune", write(**changes), "--out", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_search_to_go_on_with_must_be_there(write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", write(), "--out", str(tmp_path / "out"), "--resume"]) == 2
    assert "holds no search: leave --resume out." in capsys.readouterr().err


def test_the_example_is_sound() -> None:
    spec = Search.load(EXAMPLE)
    check(spec)
    assert spec.config({"model.hidden": [64, 64]}).model.hidden == (64, 64)


def test_domains(write: Any) -> None:
    space = {
        "a": {"choice": [1, 2]},
        "b": {"grid": ["x"]},
        "c": {"uniform": [0, 1]},
        "d": {"loguniform": [1, 100]},
        "e": {"whole": [3, 5]},
    }
    domains = Search.load(Path(write(space=space))).file.space
    assert {key: domain.one() for key, domain in domains.items()} == {"a": 1, "b": "x", "c": 0, "d": 1, "e": 3}
    assert domains["b"].build() == {"grid_search": ["x"]}
    for key, values in (("a", {1, 2}), ("e", {3, 4, 5})):
        assert {domains[key].build().sample() for _ in range(100)} == values
    for key, least, most in (("c", 0, 1), ("d", 1, 100)):
        assert all(least <= domains[key].build().sample() <= most for _ in range(100))


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_session")
def test_a_search_ends_in_a_table_and_a_training_file(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["tune", write(), "--out", str(out), "--quiet"]) == 0

    rows = json.loads((out / "table.json").read_text())
    scores = [row["validation_accuracy"] for row in rows]
    assert len(rows) == 3
    assert scores == sorted(scores, reverse=True)
    assert all(0.1 <= row["settings"]["algorithm.sigma"] <= 10 for row in rows)
    assert rows[0]["rounds"] == 20
    table = (out / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert table.startswith("| algorithm.sigma | batch_size | rounds | validation_accuracy | test_")

    best = load(out / "best.yaml")
    assert best.algorithm.sigma == rows[0]["settings"]["algorithm.sigma"]
    assert main(["train", str(out / "best.yaml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["validation_accuracy"] == pytest.approx(scores[0])

    assert main(["tune", write(), "--out", str(out)]) == 2
    assert "holds a search: use --resume." in capsys.readouterr().err
    assert main(["tune", write(), "--out", str(out), "--resume", "--quiet"]) == 0
    assert json.loads((out / "table.json").read_text()) == rows


@pytest.mark.cluster
@pytest.mark.slow
def test_an_interrupted_search_says_so_and_goes_on(write: Any, tmp_path: Path) -> None:
    """Tune calls trials that it ended on a SIGINT terminated, like those that are done."""
    out = tmp_path / "out"
    more = {"base": base(rounds=1500), "samples": 2, "scheduler": None, "every": 20}
    command = [sys.executable, "-m", "pisa_ray", "tune", write(**more), "--out", str(out), "--quiet"]
    with subprocess.Popen(command, start_new_session=True) as first:
        until = time.monotonic() + 240
        while not list(out.glob("*/result.json")):
            assert first.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        first.send_signal(signal.SIGINT)
        assert first.wait(120) == 130
    assert not (out / "best.yaml").exists()
    subprocess.run([*command, "--resume"], check=True, timeout=400)
    assert {row["rounds"] for row in json.loads((out / "table.json").read_text())} == {1500}
