"""`pisa-ray train`: the run directory it writes, how a run ends, and how one that stopped goes on."""

import hashlib
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from quick_runs import TIMES, kinds, lines, result, rows, train
from safetensors import safe_open

from pisa_ray.cli.main import main

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
HELD_OUT = {f"validation_{which}{name}" for which in ("", "worst_shard_") for name in ("loss", "accuracy")}


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
    assert train(config, "norm", "model={factory: 'quick_models:normalised'}", "rounds=2") == 0

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
    breaks = "model={factory: 'quick_models:breaks', args: {after: 45}}"
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
