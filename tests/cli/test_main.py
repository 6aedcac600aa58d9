"""The command line, in this process and without Ray: help, refusals, exit statuses, `evaluate` and `report`."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from quick_runs import result, train

from pisa_ray.cli.main import main

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
    assert train(config, "run", "model={factory: 'quick_models:normalised'}", "data.validation=0.1") == 0
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
    (other / "model.safetensors").write_bytes(b"")
    assert main(["evaluate", str(other)]) == 2
    assert "/config.yaml does not say what was run: partition is missing" in capsys.readouterr().err


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
