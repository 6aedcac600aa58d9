"""The command line, in this process and without Ray: exit statuses, run directories, and what goes wrong."""

import hashlib
import json
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors import safe_open

from pisa_ray.cli.main import main
from pisa_ray.data.digits import digits_table
from pisa_ray.schedulers import Constant
from pisa_ray.trainer.requests import Requests
from pisa_ray.trainer.watch import Watch

CONFIG = """
name: quick
data: {dataset: digits}
partition: {kind: labels_per_shard, shards: 5, labels: 2}
model: {kind: mlp, hidden: [16]}
algorithm: {kind: sisa, sigma: 0.3, rho: 30}
rounds: 6
batch_size: 16
evaluate_every: 2
workers: 0
checkpoint: {every: 3}
"""
ROW = {
    "round",
    "seconds",
    "gradient_seconds",
    "train_loss",
    "worst_shard_loss",
    "test_loss",
    "test_accuracy",
    "sigma",
    "primal_residual",
    "dual_residual",
    "consensus_residual",
    "consensus_move",
    "augmented_lagrangian",
    "momentum",
    "workers",
    "shards_reporting",
    "sample_gradients",
    "bytes_sent",
}
TIMES = {"seconds", "gradient_seconds"}
HELD_OUT = {f"validation_{which}{name}" for which in ("", "worst_shard_") for name in ("loss", "accuracy")}

#: A model that gives NaN after so many forward passes for training, and one with BatchNorm: buffers of all kinds.
MODELS = """
import torch
from torch import nn


class Breaks(nn.Sequential):
    def __init__(self, after):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
        self.after = after

    def forward(self, x):
        self.after -= self.training
        return super().forward(x) * (1 if self.after >= 0 else float("nan"))


def breaks(after):
    return Breaks(after)


def normalised():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The configuration file, in a folder that is also the current one and holds test_main_models.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "test_main_models.py").write_text(MODELS)
    path = tmp_path / "quick.yaml"
    path.write_text(CONFIG)
    yield path
    sys.modules.pop("test_main_models", None)


def train(config: Path, out: str, *settings: str, resume: bool = False) -> int:
    options = [part for setting in settings for part in ("--set", setting)]
    flags = ["--resume"] if resume else []
    return main(["train", str(config), *options, "--out", str(config.parent / out), *flags])


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def rows(run: Path) -> list[dict[str, Any]]:
    """The rows of a run, but for what a clock says."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in lines(run / "metrics.jsonl")]


def kinds(run: Path) -> list[str]:
    return [event["kind"] for event in lines(run / "events.jsonl")]


def sha256(model: Path, names: list[str]) -> str:
    """weights_sha256 by its definition: float32, little-endian, row-major, in the order of names."""
    digest = hashlib.sha256()
    with safe_open(model, framework="np") as file:
        for name in names:
            digest.update(np.ascontiguousarray(file.get_tensor(name), dtype="<f4").tobytes())
    return digest.hexdigest()


# A run that goes well


def test_a_run_directory_is_what_the_contract_says(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "run") == 0
    run = config.parent / "run"

    assert {path.name for path in run.iterdir()} == {
        "config.yaml",
        "metrics.jsonl",
        "result.json",
        "events.jsonl",
        "partition.json",
        "checkpoints",
        "model.safetensors",
    }
    resolved = yaml.safe_load((run / "config.yaml").read_text())
    assert (resolved["algorithm"]["sigma"], resolved["shard_weights"]) == (0.3, "size")
    written = lines(run / "metrics.jsonl")
    assert [row["round"] for row in written] == [2, 4, 6]
    assert all(set(row) == ROW for row in written)
    assert [row["sample_gradients"] for row in written] == [5 * 16 * round_ for round_ in (2, 4, 6)]
    assert all((row["workers"], row["shards_reporting"]) == (1, 5) for row in written)

    ended = result(run)
    best = {"best_test_loss", "best_test_accuracy"}
    assert set(ended) == ROW | best | {"name", "status", "rounds", "weights_sha256", "exact"}
    assert (ended["name"], ended["status"], ended["rounds"]) == ("quick", "finished", 6)
    assert {k: v for k, v in ended.items() if k in ROW - TIMES} == rows(run)[-1]
    assert ended["best_test_accuracy"] == max(row["test_accuracy"] for row in written)
    assert ended["best_test_loss"] == min(row["test_loss"] for row in written)
    assert 0 < ended["gradient_seconds"] < ended["seconds"]

    assert kinds(run) == ["worker_started", "checkpoint_saved", "checkpoint_saved", "finished"]
    for event in lines(run / "events.jsonl"):
        assert {"time", "round", "kind"} <= set(event)
    assert {"worker", "pid", "node"} <= set(lines(run / "events.jsonl")[0])
    shards = json.loads((run / "partition.json").read_text())["shards"]
    assert len(shards) == 5
    assert all(len(shard["labels"]) == 2 and sum(shard["labels"].values()) == shard["rows"] for shard in shards)
    saved = sorted((run / "checkpoints").iterdir())
    assert [path.name[:13] for path in saved] == ["round-000003-", "round-000006-"]
    assert all((path / "manifest.json").exists() for path in saved)
    shown = capsys.readouterr()
    assert "finished after 6 rounds" in shown.out
    assert ended["weights_sha256"] in shown.out
    assert "round 6/6" in shown.err


def test_the_hash_is_that_of_the_saved_model(config: Path) -> None:
    assert train(config, "run") == 0
    assert train(config, "norm", "model={factory: 'test_main_models:normalised'}", "rounds=2") == 0

    run, norm = config.parent / "run", config.parent / "norm"
    layers = ["1.weight", "1.bias", "3.weight", "3.bias"]
    assert sha256(run / "model.safetensors", layers) == result(run)["weights_sha256"]
    parameters = ["1.weight", "1.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    buffers = ["2.running_mean", "2.running_var"]
    assert sha256(norm / "model.safetensors", parameters + buffers) == result(norm)["weights_sha256"]
    with safe_open(norm / "model.safetensors", framework="np") as file:
        assert set(file.keys()) == {*parameters, *buffers, "2.num_batches_tracked"}
        assert file.get_tensor("2.num_batches_tracked") == 2


def test_two_runs_of_a_file_write_the_same_rows(config: Path) -> None:
    settings = ("data.validation=0.2", "sigma_schedule={kind: geometric, gamma: 0.5, k0: 2}")
    assert train(config, "a", *settings) == train(config, "b", *settings) == 0
    a, b = config.parent / "a", config.parent / "b"

    assert rows(a) == rows(b)
    assert result(a)["weights_sha256"] == result(b)["weights_sha256"]
    assert [row["sigma"] for row in rows(a)] == pytest.approx([0.6, 1.2, 2.4])
    assert all(set(row) == ROW - TIMES | HELD_OUT for row in rows(a))
    assert result(a)["best_validation_accuracy"] == max(row["validation_accuracy"] for row in rows(a))
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


def test_the_default_folder_is_named_by_the_run(config: Path) -> None:
    assert main(["train", str(config), "--set", "rounds=1", "--quiet"]) == 0
    assert (config.parent / "runs" / "quick" / "result.json").exists()


def test_stop_at_an_accuracy(config: Path) -> None:
    assert train(config, "run", "stop.test_accuracy=0.3", "rounds=500") == 0

    run = config.parent / "run"
    ended = result(run)
    assert ended["status"] == kinds(run)[-1] == "stopped"
    assert ended["rounds"] < 500
    assert ended["test_accuracy"] >= 0.3 > max((row["test_accuracy"] for row in rows(run)[:-1]), default=0)


def test_a_warm_start_has_the_saved_models_loss_at_once(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "first", "rounds=20") == 0
    weights = "model.weights=first/model.safetensors"
    assert train(config, "second", "batch_size=full", "rounds=1", weights) == 0
    capsys.readouterr()
    assert main(["evaluate", str(config.parent / "first"), "--json"]) == 0

    shards = json.loads(capsys.readouterr().out)["shards"]
    saved = sum(shard["rows"] * shard["loss"] for shard in shards) / sum(shard["rows"] for shard in shards)
    assert rows(config.parent / "second")[0]["train_loss"] == pytest.approx(saved, rel=1e-5)
    assert saved < rows(config.parent / "first")[0]["train_loss"] / 1.5
    (config.parent / "first" / "model.safetensors").unlink()
    assert main(["evaluate", str(config.parent / "second")]) == 0  # the weights it started from are not needed any more


# Going on


def test_a_resumed_run_ends_in_the_same_bits(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "whole", "rounds=12") == 0
    assert train(config, "parts", "rounds=6") == 0
    capsys.readouterr()
    free = ("checkpoint={every: 4, keep: 5}", "max_failures=3", "stop.seconds=1e6")
    assert train(config, "parts", "rounds=12", *free, resume=True) == 0

    whole, parts = config.parent / "whole", config.parent / "parts"
    assert "resuming at round 6" in capsys.readouterr().err
    assert result(parts)["weights_sha256"] == result(whole)["weights_sha256"]
    assert rows(parts) == rows(whole)
    assert "resumed" in kinds(parts)
    assert lines(parts / "metrics.jsonl")[-1]["seconds"] > lines(parts / "metrics.jsonl")[2]["seconds"]


def test_an_interrupted_run_says_how_to_go_on(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = "seed=3"
    assert train(config, "whole", seed) == 0
    asked = iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr("pisa_ray.trainer.interrupt.StopRequests.__call__", lambda _: next(asked))
        assert train(config, "run", seed) == 130

    run = config.parent / "run"
    assert (result(run)["status"], result(run)["rounds"]) == ("interrupted", 2)
    *_, hint = capsys.readouterr().out.splitlines()
    name, *command = shlex.split(hint.removeprefix("Go on with: "))
    assert name == "pisa-ray"
    assert main(command) == 0
    assert result(run)["weights_sha256"] == result(config.parent / "whole")["weights_sha256"]


def test_a_run_is_not_overwritten(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "run", "rounds=1") == 0
    before = (config.parent / "run" / "result.json").read_bytes()
    capsys.readouterr()

    assert train(config, "run", "rounds=2") == 2
    assert "holds a run already: use --resume" in capsys.readouterr().err
    assert (config.parent / "run" / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("algorithm.sigma=2", "the run was started with algorithm.sigma = 0.3, not 2.0: resume with the same value"),
        ("seed=1", "the run was started with seed = 0, not 1"),
        ("threads_per_worker=2", "the run was started with threads_per_worker = 1, not 2"),
        ("partition.labels=3", "the run was started with partition.labels = 2, not 3"),
        ("rounds=1", "rounds is 1, but the run was started with 2: it can only grow."),
    ],
)
def test_what_must_not_change_on_resume(
    config: Path, capsys: pytest.CaptureFixture[str], setting: str, sentence: str
) -> None:
    assert train(config, "run", "rounds=2") == 0
    capsys.readouterr()

    assert train(config, "run", "rounds=2", setting, resume=True) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"pisa-ray: {sentence}")
    assert shown.count("\n") == 1
    assert result(config.parent / "run")["status"] == "finished"


def test_resume_without_a_checkpoint_starts_anew_and_says_so(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "run") == 0
    run = config.parent / "run"
    first = result(run)["weights_sha256"]
    for manifest in run.glob("checkpoints/*/manifest.json"):
        manifest.unlink()
    capsys.readouterr()

    assert train(config, "run", resume=True) == 0
    assert "has no complete checkpoint: starting from round 0" in capsys.readouterr().err
    assert result(run)["weights_sha256"] == first
    assert [row["round"] for row in rows(run)] == [2, 4, 6]


# A run that goes badly


def test_a_run_that_is_not_finite_keeps_its_last_good_checkpoint(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A round is one pass for each of 5 shards, and diagnostics come in the last only: 25 passes are 5 good rounds. Four
    # passes of each are the look at the edge of stability.
    breaks = "model={factory: 'test_main_models:breaks', args: {after: 45}}"
    assert train(config, "run", breaks, "evaluate_every=100") == 1

    run = config.parent / "run"
    unused, *shown = capsys.readouterr().err.splitlines()
    assert unused == "569 of 1437 training rows belong to no shard"  # labels that none of the five shards holds
    assert len(shown) == 1
    assert shown[0].startswith("pisa-ray: round 6 is not finite at sigma 0.3: shard 0 has loss nan. The last good ch")
    assert "raising algorithm.sigma or algorithm.rho usually helps" in shown[0]
    assert result(run)["status"] == "failed"
    assert "round 6 is not finite" in result(run)["message"]
    assert kinds(run)[-1] == "failed"
    assert not (run / "model.safetensors").exists()
    (kept,) = (run / "checkpoints").iterdir()
    manifest = json.loads((kept / "manifest.json").read_text())
    assert (kept.name[:13], manifest["progress"]["round"]) == ("round-000003-", 3)
    for entry in [manifest["files"]["consensus"], *manifest["files"]["shards"]]:
        assert hashlib.sha256((kept / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    assert main(["evaluate", str(run)]) == 2
    assert "has no model.safetensors yet" in capsys.readouterr().err


@pytest.fixture
def table(config: Path) -> Path:
    """Twenty rows in a Parquet file beside the configuration."""
    path = config.parent / "rows.parquet"
    values = pa.array(np.arange(40.0).reshape(20, 2).tolist(), pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"x": values, "y": np.arange(20) % 2}), path)
    return path


ROWS = "data={train: rows.parquet, input: x, label: y}"
BAD = [
    (["rouns=5"], "rouns is not a setting: the nearest one is rounds."),
    (
        ["algorithm.sigma=-1"],
        "algorithm.sigma is -1, but it must be a number above 0 and at most 1e+30 or auto or {hint: a number}.",
    ),
    (["partition.labels=12"], "partition.labels is 12, but the data have 10 different labels: use labels <= 10."),
    (["data={train: no.parquet, input: x, label: y}"], "data.train is '"),
    (["data={train: rows.parquet, test: no.parquet, input: x, label: y}"], "data.test is '"),
    (
        ["data={dataset: digits, validation: 1.5}"],
        "data.validation is 1.5, but it must be a number above 0 and below 1",
    ),
    (["data={train: quick.yaml, input: x, label: y}"], "quick.yaml cannot be read as a Parquet file"),
    (["data={train: rows.parquet, input: z, label: y}"], "data.input is 'z', but "),
    (["data={train: rows.parquet, input: x, label: z}"], "data.label is 'z', but "),
    (["data={train: rows.parquet, label: y}"], "data.input is missing, but "),
    ([ROWS, "partition={kind: by_column, column: z}"], "column is 'z', but "),
    ([ROWS, "partition={kind: iid, shards: 21}"], "partition.shards is 21, which takes one row a shard, but the data"),
    (["partition={kind: iid, shards: 1438}"], "partition.shards is 1438, which takes one row a shard, but the data h"),
    (
        ["partition={kind: indices, shards: [[0, 1], []]}"],
        "partition.shards[1] is [], but it must be a list of at leas",
    ),
    (["partition={kind: indices, shards: [[0, 1], [2000]]}"], "has rows 2000 to 2000 in shard 1, but the data have "),
    (["partition={kind: indices, shards: [[0, 1], [1]]}"], "lists row 1 more than once, but shards must not share"),
    (["partition={kind: dirichlet, shards: 100, alpha: 1e-3}"], "partition.alpha is 0.001, but "),
    (["model.kind=lenet", "model.hidden=null"], "the model lenet needs images (channels, height, width)"),
    (["model={kind: lenet, hidden: [3]}"], "model.hidden is for kind mlp, but model.kind is lenet: leave it out."),
    (["model={}"], "model needs either kind or factory (package.module:function), and not both."),
    (["model={kind: mlp, factory: 'a:b'}"], "model needs either kind or factory"),
    (["model={factory: 'nowhere:f'}"], "model.factory is 'nowhere:f', but it must be 'package.module:function' ("),
    (
        ["model.args={depth: 3}"],
        "an unexpected keyword argument 'depth'; give model.hidden and model.args what the",
    ),
    (["model.weights=no.safetensors"], "model.weights is '"),
    (["model.weights=quick.yaml"], "quick.yaml cannot be read as safetensors"),
    (
        ["workers={min: 3, max: 2}"],
        "workers.min is 3 and workers.max 2, but it must be a range whose max is at least its",
    ),
    (
        ["model.hidden=[80]", "algorithm={kind: pisa, preconditioner: hessian_diagonal}"],
        "algorithm.preconditioner.probes is null, but the exact diagonal of 6010 parameters takes",
    ),
]


@pytest.mark.parametrize(("settings", "sentence"), BAD, ids=["; ".join(settings) for settings, _ in BAD])
@pytest.mark.usefixtures("table")
def test_bad_input(config: Path, capsys: pytest.CaptureFixture[str], settings: list[str], sentence: str) -> None:
    running = sys.modules["ray"].is_initialized() if "ray" in sys.modules else False
    assert train(config, "run", "workers=2", *settings) == 2

    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("pisa-ray: ")
    assert sentence in line
    assert not (config.parent / "run").exists()
    assert ("ray" in sys.modules and sys.modules["ray"].is_initialized()) == running


def test_a_run_directory_that_cannot_be(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "quick.yaml/run") == 2
    assert "cannot be written" in capsys.readouterr().err


# The other commands


def test_evaluate_finds_what_the_run_recorded(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "run", "model={factory: 'test_main_models:normalised'}", "data.validation=0.1") == 0
    run = config.parent / "run"
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json", "--trust"]) == 0

    measured, ended = json.loads(capsys.readouterr().out), result(run)
    assert measured["weights_sha256"] == ended["weights_sha256"]
    assert measured["test"] == {"loss": ended["test_loss"], "accuracy": ended["test_accuracy"]}
    shards = json.loads((run / "partition.json").read_text())["shards"]
    assert [shard["rows"] for shard in measured["shards"]] == [shard["rows"] for shard in shards]

    assert main(["evaluate", str(run), "--trust"]) == 0
    text = capsys.readouterr().out
    assert f"{ended['test_accuracy']:.4f}" in text
    assert f"weights_sha256 {ended['weights_sha256']}" in text
    assert "shard 4" in text


def test_evaluate_says_what_it_cannot_read(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(config.parent / "nowhere")]) == 2
    assert "is not a run directory: it has no config.yaml." in capsys.readouterr().err
    other = config.parent / "api"
    other.mkdir()
    (other / "config.yaml").write_text("data: {kind: Data, train: digits}\n")
    assert main(["evaluate", str(other)]) == 2
    assert "was not made by pisa-ray train" in capsys.readouterr().err


def during(monkeypatch: pytest.MonkeyPatch, round_: int, what: Callable[[], None]) -> None:
    """Have something happen when a round of the next run is about to begin."""

    def grow(_: Constant, sigma: float, now: int, memory: Any) -> float:
        if now == round_:
            what()
        return sigma

    monkeypatch.setattr(Constant, "grow", grow)
    monkeypatch.setattr(Watch, "frozen", lambda _, row: None)  # which looks at rounds to come


def test_shards_join_and_leave_a_run_that_is_going_on(
    config: Path, table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, new = config.parent / "run", config.parent / "new.parquet"
    pq.write_table(digits_table("digits:test").slice(0, 30), new)
    words = ["shards", str(run)]
    bad = [
        (["--remove", "5"], "there is no shard 5 that could leave: name one of 0, 1, 2, 3, 4."),
        (["--remove", "-1"], "there is no shard -1 that could leave"),
        (["--add", str(table)], "data.input is 'features', but "),
        (["--add", "nowhere.parquet"], "nowhere.parquet' do not exist"),
        (["--add", "wide.parquet"], "has inputs of shape (2,), but data.train has (64,): use data of the same kind."),
        (["--add", "beyond.parquet"], "has labels from 0 to 10, but the model knows those from 0 to 9"),
    ]
    features = pq.read_table(new)["features"]
    two = pa.array(np.zeros((3, 2), np.float32).tolist(), pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"features": two, "label": [1, 2, 3]}), config.parent / "wide.parquet")
    pq.write_table(
        pa.table({"features": features.slice(0, 2), "label": pa.array([0, 10])}), config.parent / "beyond.parquet"
    )

    def ask() -> None:
        capsys.readouterr()
        for options, sentence in bad:
            assert main([*words, *options]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert sentence in line
        assert not list(run.glob("shards-*"))
        assert main([*words, "--remove", "3"]) == 0
        assert main([*words, "--add", "new.parquet"]) == 0  # as seen from here
        assert "asked for" in capsys.readouterr().out
        assert main([*words, "--remove", "3"]) == 2  # that is under way
        assert "shard 3 has left already: name one of 0, 1, 2, 4, 5." in capsys.readouterr().err

    during(monkeypatch, 4, ask)
    assert train(config, "run", "evaluate_every=1") == 0
    assert "after round 3: shard 3 with " in capsys.readouterr().err
    assert [row["shards_reporting"] for row in rows(run)] == [5, 5, 5, 5, 5, 5]
    assert not list(run.glob("shards-*"))
    changed = [event for event in lines(run / "events.jsonl") if event["kind"].startswith("shard_")]
    assert [(event["kind"], event["shard"], event["round"]) for event in changed] == [
        ("shard_removed", 3, 3),
        ("shard_added", 5, 3),
    ]
    assert (changed[1]["train"], changed[1]["rows"]) == (str(new), 30)
    assert main(["evaluate", str(run), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert [(shard["shard"], shard["rows"]) for shard in measured["shards"]][3:] == [(4, ANY), (5, 30)]
    assert measured["weights_sha256"] == result(run)["weights_sha256"]
    assert main([*words, "--remove", "0"]) == 2
    assert "no run is going on in" in capsys.readouterr().err


def test_what_was_asked_for_outlives_a_driver_that_did_not_see_it(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config.parent / "run"
    during(monkeypatch, 3, lambda: main(["shards", str(run), "--remove", "1"]) and None)
    with monkeypatch.context() as patch:
        patch.setattr(Requests, "asked_shards", lambda _: [])
        assert train(config, "run", "rounds=3") == 0
    monkeypatch.undo()
    monkeypatch.chdir(config.parent)
    assert len(list(run.glob("shards-*"))) == 1
    assert train(config, "run", "rounds=6", "evaluate_every=1", resume=True) == 0
    assert [row["shards_reporting"] for row in rows(run)][-3:] == [4, 4, 4]
    assert not list(run.glob("shards-*"))
    assert "shard 1 with " in capsys.readouterr().err


def test_report_writes_the_page(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, "run") == 0
    run = config.parent / "run"
    capsys.readouterr()

    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"report: {(run / 'report.html').resolve()}\n"
    assert result(run)["weights_sha256"] in (run / "report.html").read_text()
    assert main(["report", str(run), str(run), "--out", str(config.parent / "page.html")]) == 0
    assert (config.parent / "page.html").exists()
    assert main(["report", str(config.parent / "nowhere")]) == 2


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["train", "evaluate", "report", "Exit status: 0 ended as planned, 1 failed, 2 bad input"]),
        (["train"], ["--set", "--out", "--resume", "--quiet", "CONFIG.yaml"]),
        (["shards"], ["--remove SHARD", "--add PATH", "RUN_DIR"]),
        (["evaluate"], ["--json", "RUN_DIR"]),
        (["report"], ["--out", "RUN_DIR"]),
    ],
)
def test_help(capsys: pytest.CaptureFixture[str], command: list[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])

    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(word in text for word in words)


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train"], ["train", "a.yaml", "--nonsense"]])
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "usage: pisa-ray" in capsys.readouterr().err


# As a process


def test_the_module_is_the_command_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["pisa_ray", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("pisa_ray", run_name="__main__")

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: pisa-ray")


def imported_by(config: Path, *arguments: str) -> tuple[int, list[str], set[str]]:
    """The status of `pisa-ray train` in a process of its own, what it printed as errors, and what it imported."""
    command = [sys.executable, "-X", "importtime", "-m", "pisa_ray", "train", str(config), "--out", "run", *arguments]
    done = subprocess.run(command, cwd=config.parent, check=False, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    return done.returncode, said, {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_bad_input_does_not_even_import_ray(config: Path) -> None:
    status, said, imported = imported_by(config, "--set=partition.labels=12", "--set=workers=2")
    assert status == 2
    assert said == ["pisa-ray: partition.labels is 12, but the data have 10 different labels: use labels <= 10."]
    assert "torch" in imported
    assert not imported & {"ray", "matplotlib"}
    assert not (config.parent / "run").exists()


def test_a_run_in_this_process_imports_what_it_uses(config: Path) -> None:
    status, said, imported = imported_by(config, "--set=rounds=1", "--set=workers=0", "--quiet")
    assert (status, said) == (0, [])
    assert imported & {"ray", "matplotlib", "torch._inductor", "torch._dynamo", "transformers"} == set()
