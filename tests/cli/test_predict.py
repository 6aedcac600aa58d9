"""`pisa-ray predict`: the columns of the data, and what the model says of each row, as in the evaluation."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pisa_ray.cli.main import main

RANDOM = np.random.default_rng(0)


def table(rows: int, *, label: bool = True, real: bool = False) -> pa.Table:
    y = RANDOM.integers(0, 3, rows)
    columns = {"a": RANDOM.normal(size=rows) + y, "b": RANDOM.normal(size=rows), "name": [f"r{i}" for i in range(rows)]}
    return pa.table(columns | ({"y": y / 2 if real else y} if label else {}))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(*, real: bool = False, rounds: int = 3) -> None:
    pq.write_table(table(2100, real=real), "rows.parquet")
    config = {
        "data": {"train": "rows.parquet", "test": "rows.parquet", "input": ["a", "b"], "label": "y"},
        "partition": {"kind": "iid", "shards": 3},
        "model": {"kind": "mlp", "hidden": [4]},
        "rounds": rounds,
        "evaluate_every": 1,
        "checkpoint": {"every": 1, "best_by": "test_loss", "order": "min"},
        "workers": 0,
    }
    Path("c.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "c.yaml", "--out", "run", "--quiet"]) == 0


@pytest.mark.usefixtures("here")
def test_classes_are_those_that_the_evaluation_counts(capsys):
    trained()
    capsys.readouterr()
    assert main(["predict", "run", "rows.parquet", "--out", "said.parquet"]) == 0
    assert capsys.readouterr().out == "said.parquet: 2,100 rows, by the model of round 3\n"
    said = pq.read_table("said.parquet")
    assert said.column_names == ["a", "b", "name", "y", "output", "class"]
    accuracy = np.mean(said["class"].to_numpy() == said["y"].to_numpy())
    import json

    assert accuracy == pytest.approx(json.loads(Path("run/result.json").read_text())["test_accuracy"], abs=1e-12)
    assert len(said["output"][0].as_py()) == 3
    assert main(["predict", "run", "rows.parquet", "--out", "best.parquet", "--best"]) == 0


@pytest.mark.usefixtures("here")
def test_rows_need_no_labels_and_may_be_a_folder():
    trained()
    Path("new").mkdir()
    for part in range(2):
        pq.write_table(table(7, label=False), f"new/{part}.parquet")
    assert main(["predict", "run", "new", "--out", "said.parquet"]) == 0
    assert pq.read_table("said.parquet").num_rows == 14
    assert main(["predict", "run", "said.parquet", "--out", "again.parquet"]) == 0  # its own columns anew
    assert pq.read_table("again.parquet").equals(pq.read_table("said.parquet"))


@pytest.mark.usefixtures("here")
def test_a_regression_has_numbers():
    trained(real=True)
    assert main(["predict", "run", "rows.parquet", "--out", "said.parquet"]) == 0
    said = pq.read_table("said.parquet")
    assert said.column_names == ["a", "b", "name", "y", "output"]
    assert pa.types.is_float32(said["output"].type)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: table(5).drop_columns("b"), "has no column 'b', which the run's data.input names: it has ['a', "),
        (lambda: table(0), "has no rows: give data with some."),
        (lambda: table(5).set_column(0, "a", pa.array([1.0, None, 2, 3, 4])), "column 'a'"),
        (lambda: table(5).set_column(0, "a", pa.array(list("abcde"))), "'a'"),
    ],
)
def test_rows_that_cannot_be_used_are_said_and_nothing_is_written(capsys, make, sentence):
    trained(rounds=1)
    pq.write_table(make(), "odd.parquet")
    capsys.readouterr()
    assert main(["predict", "run", "odd.parquet", "--out", "said.parquet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert not Path("said.parquet").exists()


@pytest.mark.usefixtures("here")
def test_what_else_is_refused(capsys):
    trained(rounds=1)
    Path("there").touch()
    for arguments, sentence in (
        (["run", "rows.parquet", "--out", "there"], "there is there already"),
        (["run", "nowhere", "--out", "x"], "nowhere cannot be read as Parquet"),
        (["run", "c.yaml", "--out", "x"], "c.yaml cannot be read as Parquet"),
        (["nowhere", "rows.parquet", "--out", "x"], "is not a run directory"),
        (["run", "rows.parquet", "--out", "x", "--model", "nowhere:f"], "--model is 'nowhere:f', but it must be"),
    ):
        capsys.readouterr()
        assert main(["predict", *arguments]) == 2, arguments
        assert sentence in capsys.readouterr().err
    assert not Path("x").exists()
