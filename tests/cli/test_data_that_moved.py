"""Runs whose data lie elsewhere now go on and are evaluated; data that hold something else are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pisa_ray import IID, SISA, ConfigError, Data, PisaTrainer
from pisa_ray.cli.compare import cells
from pisa_ray.cli.main import main
from pisa_ray.models import mlp

TRAIN = """
data: {train: data/train, test: data/test.parquet, validation: data/validation.parquet, input: [a, b], label: y}
partition: {kind: iid, shards: 3}
model: {kind: mlp, hidden: [4]}
algorithm: {kind: sisa, sigma: 1, rho: 1}
rounds: 4
checkpoint: {every: 2}
batch_size: 8
workers: 0
"""


def write(path, seed, rows=60):
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    a, b = rng.normal(size=(2, rows))
    pq.write_table(pa.table({"a": a, "b": b, "y": rng.integers(0, 3, rows)}), path)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with data, a configuration and a run that has ended."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data" / "train" / "0.parquet", 0)
    write(tmp_path / "data" / "train" / "1.parquet", 1)
    write(tmp_path / "data" / "test.parquet", 2)
    write(tmp_path / "data" / "validation.parquet", 3)
    (tmp_path / "c.yaml").write_text(TRAIN)
    assert go("run") == 0
    return tmp_path


def go(out, *settings, resume=False):
    words = [word for setting in settings for word in ("--set", setting)]
    return main(["train", "c.yaml", "--quiet", "--out", out, *words, *(["--resume"] if resume else [])])


def ended(path):
    return json.loads((path / "result.json").read_text())["weights_sha256"]


def moved(to="data2"):
    return tuple(f"data.{split}={to}/{rest}" for split, rest in (
        ("train", "train"), ("test", "test.parquet"), ("validation", "validation.parquet")))  # fmt: skip


def test_a_run_goes_on_with_data_that_moved_and_ends_in_the_same_bits(place):
    assert go("straight", "rounds=6") == 0
    shutil.move("data", "data2")
    (place / "data2" / "train" / "1.parquet").rename(place / "data2" / "train" / "7.parquet")
    assert go("run", "rounds=6", *moved(), resume=True) == 0
    assert ended(place / "run") == ended(place / "straight")
    config = yaml.safe_load((place / "run" / "config.yaml").read_text())
    assert config["data"]["train"] == str(place / "data2" / "train")
    assert main(["evaluate", "run"]) == 0  # it knows where they lie now


def test_a_copy_of_a_run_goes_on_anywhere(place, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("another machine")
    for name in ("run", "data", "c.yaml"):
        shutil.move(place / name, elsewhere / name)
    monkeypatch.chdir(elsewhere)
    assert go("run", "rounds=6", resume=True) == 0
    assert main(["evaluate", "run"]) == 0


@pytest.mark.parametrize("split", ["train/1", "test", "validation"])
def test_a_run_does_not_go_on_with_other_data_in_the_same_place(place, capsys, split):
    before = (place / "run" / "config.yaml").read_bytes()
    write(place / "data" / f"{split}.parquet", 9)
    assert go("run", "rounds=6", resume=True) == 2
    assert f"data.{split.partition('/')[0]} does not hold what the run was started with" in capsys.readouterr().err
    assert (place / "run" / "config.yaml").read_bytes() == before


def test_validation_as_a_share_is_no_place(place, capsys):
    assert go("run", "rounds=6", "data.validation=0.1", resume=True) == 2
    assert "data.validation" in capsys.readouterr().err


def test_evaluate_takes_the_place_where_data_lie_now(place, capsys):
    assert main(["evaluate", "run", "--json"]) == 0
    before = capsys.readouterr().out
    shutil.move("data", "data2")
    assert main(["evaluate", "run"]) == 2
    assert "data.train is " in (said := capsys.readouterr().err)
    assert "give the present one by --data PATH" in said
    assert main(["evaluate", "run", "--data", "data2/train"]) == 2
    assert "give the present one by --test PATH" in capsys.readouterr().err
    assert main(["evaluate", "run", "--json", "--data", "data2/train", "--test", "data2/test.parquet"]) == 0
    assert capsys.readouterr().out == before  # validation data of their own are not needed


def test_evaluate_refuses_other_data(place, capsys):
    write(place / "other" / "train.parquet", 9)
    assert main(["evaluate", "run", "--data", "other/train.parquet"]) == 2
    assert "data.train does not hold what the run was started with" in capsys.readouterr().err
    write(place / "data" / "test.parquet", 9)
    assert main(["evaluate", "run"]) == 2
    assert "data.test does not hold what the run was started with" in capsys.readouterr().err
    (place / "run" / "partition.json").unlink()  # as the sentence says
    assert main(["evaluate", "run"]) == 0


def test_places_are_for_runs_that_have_them(place, capsys):
    config = yaml.safe_load(TRAIN) | {"data": {"dataset": "digits"}}
    (place / "c.yaml").write_text(yaml.safe_dump(config))
    assert go("digits") == 0
    assert main(["evaluate", "digits", "--data", "data/train"]) == 2
    assert "--data is 'data/train', but the run has no data.train that could lie elsewhere" in capsys.readouterr().err


def test_the_python_api_goes_on_with_data_that_moved(place, tmp_path):
    def train(data, rounds):
        return PisaTrainer(
            model=lambda: mlp((2,), 3),
            data=Data(train=data, input=["a", "b"], label="y"),
            partition=IID(3),
            algorithm=SISA(sigma=1.0, rho=1.0),
            rounds=rounds,
            batch_size=8,
            scaling_config=0,
            run_config=tmp_path / "api",
            resume=rounds > 2,
            progress=False,
        ).fit()

    train("data/train", 2)
    shutil.move("data", "data2")
    assert train("data2/train", 4).status == "finished"
    write(place / "data2" / "train" / "0.parquet", 9)
    with pytest.raises(ConfigError, match=r"data.train does not hold what the run was started with"):
        train("data2/train", 5)


def test_a_comparison_knows_its_data_by_content(place, tmp_path):
    config = yaml.safe_load((place / "run" / "config.yaml").read_text())
    cell = cells.Cell("one", "even", 0, cells.Config.read(config, ""), place / "run")
    cells.check_same([cell])
    shutil.move("data", "data2")
    names = ("train", "test", "validation")
    moved = {name: getattr(cell.config.data, name).replace("/data/", "/data2/") for name in names}
    cell = replace(cell, config=cell.config.changed(data=replace(cell.config.data, **moved)))
    cells.check_same([cell])
    write(place / "data2" / "train" / "0.parquet", 9)
    cells.opened.cache_clear()
    with pytest.raises(ConfigError, match=r"data.train does not hold what .* started with: one, even, seed 0 needs"):
        cells.check_same([cell])


# Names are not paths


BAD = ["../x", "/abs", "a/b", "", " ", ".", "..", "n" * 300, "é" * 150, "a\0b", "a\nb", "a\x1bb", "a\\b", "\ud800"]


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("command", ["train", "compare", "tune"])
def test_a_name_is_that_of_a_folder(tmp_path, monkeypatch, capsys, name, command):
    monkeypatch.chdir(tmp_path)
    data, partition = {"dataset": "digits"}, {"kind": "iid", "shards": 2}
    base = {"data": data, "model": {"kind": "mlp"}, "rounds": 1, "workers": 0}
    files = {
        "train": base | {"partition": partition},
        "compare": {"base": base, "algorithms": {"a": {"algorithm": {"kind": "sisa"}}}, "partitions": {"p": partition}},
        "tune": {
            "base": base | {"partition": partition},
            "space": {"batch_size": {"choice": [8, 16]}},
            "metric": "validation_loss",
        },
    }
    (tmp_path / "c.yaml").write_text(json.dumps(files[command] | {"name": name}))
    assert main([command, "c.yaml", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "name" in said or "a character that no text can have" in said
    assert len(said.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["c.yaml"]


@pytest.mark.parametrize("name", ["LeNet, ten shards", "x:y", ".hidden", "CON", "é", "a b", "-", "10"])
def test_other_names_are_folders(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(
        f"name: {json.dumps(name)}\ndata: {{dataset: digits}}\npartition: {{kind: iid, shards: 2}}\n"
        "model: {kind: mlp, hidden: [4]}\nalgorithm: {kind: sisa, sigma: 1, rho: 1}\nrounds: 1\nworkers: 0\n"
    )
    assert main(["train", "c.yaml", "--quiet"]) == 0
    assert (tmp_path / "runs" / name / "result.json").exists()


@pytest.mark.parametrize("out", ["", "  ", "a\0b"])
@pytest.mark.parametrize("command", ["train", "compare", "tune", "report"])
def test_out_names_a_path(command, out, capsys):
    with pytest.raises(SystemExit) as status:
        main([command, "c.yaml", "--out", out])
    assert status.value.code == 2
    assert "argument --out: it is " in capsys.readouterr().err
