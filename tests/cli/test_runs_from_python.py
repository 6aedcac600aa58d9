"""A run that was begun in Python is read and gone on with by the command line; what has no name is told."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from torch import nn

from pisa_ray import (
    IID,
    SISA,
    Asynchronous,
    ByColumn,
    ConfigError,
    Data,
    Distorted,
    Geometric,
    Groups,
    Indices,
    LabelSkew,
    ModelSection,
    Noise,
    PisaTrainer,
    ShiftLabels,
)
from pisa_ray.cli.main import main
from pisa_ray.models import lenet, mlp
from pisa_ray.trainer.trust import check_installed

MODULE = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

def loss(output, target):
    return nn.functional.cross_entropy(output, target, label_smoothing=0.1)

def first(slot):
    return slot.name.startswith("0")

def second(slot):
    return slot.name == "2.bias"

def top(output, target):
    return {"top": (output.topk(3).indices == target[:, None]).any(1)}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "python_run_parts.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(**changes):
    arguments = {
        "data": Data(train="digits", test="digits:test"),
        "partition": LabelSkew(shards=4, labels=3),
        "algorithm": SISA(sigma=0.3, rho=30),
        "sigma_schedule": Geometric(0.9, 2),
        "rounds": 3,
        "batch_size": 16,
        "scaling_config": 0,
        "run_config": "run",
        "progress": False,
    }
    return PisaTrainer(**arguments | changes).fit()


def evaluated(capsys: pytest.CaptureFixture[str], *options: str) -> dict:
    assert main(["evaluate", "run", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_has_a_name_is_recorded_and_everything_works(folder, capsys):
    import python_run_parts as parts

    ended = run(model=parts.make, loss=parts.loss, metrics=[parts.top, "accuracy"], batch_size=None, stop_seconds=1e3)
    recorded = yaml.safe_load(Path("run/config.yaml").read_text())
    assert recorded["model"]["factory"] == "python_run_parts:make"
    assert (recorded["loss"], recorded["metrics"]) == ("python_run_parts:loss", ["python_run_parts:top", "accuracy"])
    assert (recorded["batch_size"], recorded["workers"], recorded["stop"]["seconds"]) == ("full", 0, 1000.0)
    assert recorded["algorithm"]["kind"] == "sisa"

    assert main(["evaluate", "run"]) == 2
    assert "code that" in capsys.readouterr().err  # of no installed package, so only where it is trusted
    measured = evaluated(capsys, "--trust")
    assert measured["weights_sha256"] == ended.weights_sha256
    assert measured["test"]["top"] == ended.metrics["test_top"]
    assert main(["report", "run"]) == 0

    again = ["train", "run/config.yaml", "--out", "run", "--resume", "--quiet", "--set", "rounds=5"]
    assert main(again) == 0
    whole = run(model=parts.make, loss=parts.loss, metrics=[parts.top, "accuracy"], batch_size=None, rounds=5,
                stop_seconds=1e3, run_config="whole")  # fmt: skip
    assert json.loads(Path("run/result.json").read_text())["weights_sha256"] == whole.weights_sha256


@pytest.mark.usefixtures("folder")
def test_what_has_none_is_said_and_can_be_said_again(capsys):
    ended = run(
        model=lambda: mlp((64,), 10, [8]), loss=lambda o, t: nn.functional.cross_entropy(o, t, reduction="mean")
    )
    assert main(["evaluate", "run"]) == 2
    told = capsys.readouterr().err
    assert "model.factory was the function " in told
    assert "<lambda>" in told
    assert "config.yaml cannot name: give --model package.module:function --set loss=package.module:function." in told
    assert main(["report", "run"]) == 0

    Path("said_again.py").write_text("from pisa_ray.models import mlp\ndef make():\n    return mlp((64,), 10, [8])\n")
    assert main(["evaluate", "run", "--model", "said_again:make"]) == 2
    assert "loss was the function " in capsys.readouterr().err
    measured = evaluated(capsys, "--model", "said_again:make", "--set", "loss=cross_entropy")
    assert measured["weights_sha256"] == ended.weights_sha256
    assert measured["test"]["loss"] == ended.metrics["test_loss"]

    assert main(["train", "run/config.yaml", "--out", "run", "--resume", "--quiet"]) == 2
    assert "which no file can name" in capsys.readouterr().err


def test_a_module_and_a_table_in_memory_are_said_by_their_classes(folder, capsys):
    columns = {"x": list(np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)), "y": [0, 1] * 20}
    pa.parquet.write_table(pa.table(columns), "rows.parquet")
    run(model=nn.Linear(3, 2), data=Data(train=pa.table(columns), input="x", label="y"), partition=IID(4))
    assert main(["evaluate", "run"]) == 2
    told = capsys.readouterr().err
    assert "data.train was an object of pyarrow.lib.Table and model.factory was an object of torch.nn" in told
    assert "give --data PATH --model package.module:function." in told
    Path("linear.py").write_text("from torch import nn\ndef make():\n    return nn.Linear(3, 2)\n")
    assert len(evaluated(capsys, "--data", "rows.parquet", "--model", "linear:make")["shards"]) == 4


@pytest.mark.parametrize(
    "partition",
    [
        Distorted(Distorted(LabelSkew(4, 3), Noise(0.1)), ShiftLabels(0.3, shards=[1])),
        Indices([np.arange(200), np.arange(200, 1400)]),
        ByColumn("site"),
    ],
    ids=["distorted", "indices", "by column"],
)
def test_partitions_of_python_are_read_again(folder, capsys, partition):
    import python_run_parts as parts

    x = np.random.default_rng(0).normal(size=(1437, 64)).astype(np.float32)
    table = pa.table({"x": list(x), "y": np.arange(1437) % 10, "site": [f"s{i % 3}" for i in range(1437)]})
    pa.parquet.write_table(table, "rows.parquet")
    ended = run(model=parts.make, data=Data(train="rows.parquet", input="x", label="y"), partition=partition)
    measured = evaluated(capsys, "--trust")
    assert measured["weights_sha256"] == ended.weights_sha256
    assert [one["rows"] for one in measured["shards"]] == [
        one["rows"] for one in json.loads(Path("run/partition.json").read_text())["shards"]
    ]


def test_a_run_is_read_from_any_folder(folder, capsys, monkeypatch):
    import python_run_parts as parts

    x = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    pa.parquet.write_table(pa.table({"x": list(x), "y": np.arange(40) % 10}), "rows.parquet")
    run(model=parts.make, data=Data(train=Path("rows.parquet"), test="rows.parquet", input="x", label="y"))
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert main(["evaluate", "../run", "--trust"]) == 0


def test_an_asynchronous_run_records_its_rule(folder):
    import python_run_parts as parts

    run(model=parts.make, asynchronous=Asynchronous(quorum=1.0, staleness=0))
    recorded = yaml.safe_load(Path("run/config.yaml").read_text())
    assert recorded["asynchronous"] == {"quorum": 1.0, "staleness": 0, "deadline": None, "replay": None}


def test_functions_of_this_library_are_trusted(folder):
    check_installed("pisa_ray.models:mlp", "model.factory", folder)
    assert lenet.__module__ == "pisa_ray.models.zoo"


@pytest.mark.usefixtures("folder")
def test_data_may_be_a_pattern_or_a_list(capsys):
    import python_run_parts as parts

    x = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    for part in range(2):
        pa.parquet.write_table(pa.table({"x": list(x), "y": np.arange(40) % 10}), f"rows-{part}.parquet")
    for train in ("rows-*.parquet", ["rows-0.parquet", "rows-1.parquet"]):
        run(model=parts.make, data=Data(train=train, input="x", label="y"), overwrite=True)
        assert len(evaluated(capsys, "--trust")["shards"]) == 4
    Path("rows-1.parquet").unlink()
    assert main(["evaluate", "run", "--trust"]) == 2
    assert "but there is no such path: give the present one by --data PATH." in capsys.readouterr().err


def test_what_has_no_name_is_not_compared_but_told(folder):
    """A lambda may be another one, wherever it was written; the model's parameters are compared."""
    import python_run_parts as parts

    first = run(model=lambda: parts.make().train(), loss=lambda o, t: 1 * parts.loss(o, t))

    def elsewhere(**changes):
        arguments = {"model": lambda: parts.make().train(), "loss": parts.loss} | changes
        return run(resume=True, rounds=5, **arguments)

    with pytest.raises(ConfigError, match=r"other model parameters"):
        elsewhere(model=lambda: nn.Linear(64, 10))
    with pytest.raises(ConfigError, match=r"started with algorithm.rho = 30"):
        elsewhere(algorithm=SISA(sigma=0.3, rho=31))
    again = elsewhere()
    assert again.weights_sha256 != first.weights_sha256
    told = [json.loads(line) for line in (folder / "run" / "events.jsonl").read_text().splitlines()]
    assert [one["message"].split()[0] for one in told if "has no name" in one.get("message", "")] == [
        "loss",
        "model.factory",
    ]
    options = ["--resume", "--out", "run", "--quiet", "--set", "rounds=6"]
    named = ["--set", "model.factory=python_run_parts:make", "--set", "loss=python_run_parts:loss"]
    assert main(["train", "run/config.yaml", *options, *named]) == 0


def test_a_run_of_the_command_line_goes_on_in_python(folder):
    config = {"data": {"dataset": "digits"}, "partition": {"kind": "iid", "shards": 2},
              "model": {"kind": "mlp", "hidden": [8]}, "rounds": 2, "workers": 0}  # fmt: skip
    Path("c.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "c.yaml", "--out", "run", "--quiet"]) == 0
    same = {
        "partition": IID(2),
        "algorithm": None,
        "sigma_schedule": None,
        "batch_size": 64,
        "resume": True,
        "rounds": 3,
    }
    for model in (lambda: mlp((64,), 10, [8]), ModelSection(kind="mlp", hidden=[8])):
        run(model=model, **same)
        same["rounds"] += 1


def test_groups_with_a_selector_are_read_again(folder, capsys):
    import python_run_parts as parts

    groups = {"one": (parts.first, SISA(sigma=0.3, rho=30)), "two": (parts.second, None), "rest": SISA(sigma=3, rho=30)}
    ended = run(model=parts.make, algorithm=Groups(groups=groups), sigma_schedule=None)
    assert evaluated(capsys, "--trust")["weights_sha256"] == ended.weights_sha256
    assert main(["evaluate", "run"]) == 2
    assert "code that" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_infinity_is_no_limit(capsys):
    import python_run_parts as parts

    run(model=parts.make, clip_norm=float("inf"), stop_seconds=float("inf"))
    evaluated(capsys, "--trust")
