"""Checkpoints as they are written: each is whole or not there, and a rule says which stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import plain_net, run, uneven

from pisa_ray import ConfigError, Data, PisaError
from pisa_ray.engine.files import Folder
from pisa_ray.trainer import checkpoint
from pisa_ray.trainer.checkpoint import Keep, check_environment
from pisa_ray.trainer.manifest import Progress
from pisa_ray.trainer.settings import Run

HERE = Path(__file__).parent


# Whole or not there


def test_a_driver_may_die_at_any_file_operation(tmp_path):
    """Each time the last complete checkpoint is there, and resuming ends in the same bits and rows."""
    paths = os.pathsep.join([str(HERE), *sys.path])
    command = [sys.executable, str(HERE / "killed_saves.py"), str(tmp_path)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stderr
    *deaths, survivor = map(json.loads, done.stdout.splitlines())
    assert survivor["status"] == 0
    assert len(deaths) > 30
    assert {2, 3} == {death["round"] for death in deaths}
    assert all(death["same"] and death["rows"] == [1, 2, 3] and death["left"] <= 2 for death in [*deaths, survivor])


def test_a_draft_is_no_checkpoint_until_it_is_finished_and_holds_what_was_true_when_it_began(tmp_path):
    folder, progress = Folder.of(tmp_path), Progress(round=4, sigma=2.0, best={"best_test_loss": 1.0})
    draft = checkpoint.begin(folder, progress, {}, {}, {"round": 4, "test_loss": 1.0, "momentum": None})
    progress.round, progress.best["best_test_loss"] = 5, 0.5  # training goes on
    assert checkpoint.latest(folder) is None
    entry = draft.folder.write_tensors("consensus.safetensors", {"published": torch.ones(3)})
    assert checkpoint.latest(folder) is None
    done = draft.finish({"consensus": entry, "shards": []})
    assert done == checkpoint.latest(folder)
    assert done.progress == Progress(round=4, sigma=2.0, best={"best_test_loss": 1.0})
    assert done.manifest["metrics"] == {"round": 4, "test_loss": 1.0}


def test_files_that_the_driver_does_not_see_make_no_checkpoint(tmp_path):
    """As when workers on other machines write to disks of their own."""
    draft = checkpoint.begin(tmp_path, Progress(round=1, sigma=1.0), {}, {})
    entry = draft.folder.write_tensors("consensus.safetensors", {"published": torch.ones(3)})
    draft.folder.remove("consensus.safetensors")
    with pytest.raises(PisaError, match=r"the driver cannot see it: use a folder that all machines share"):
        draft.finish({"consensus": entry, "shards": []})
    assert checkpoint.latest(tmp_path) is None


def save(folder: Path, round_: int, keep: Keep | None = None, **metrics: float) -> checkpoint.Checkpoint:
    draft = checkpoint.begin(folder, Progress(round=round_, sigma=1.0), {}, {}, metrics, keep)
    entry = draft.folder.write_tensors("consensus.safetensors", {"published": torch.ones(1)})
    return draft.finish({"consensus": entry, "shards": []})


def rounds(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.iterdir())


def test_unfinished_and_repeated_attempts_are_cleared_away(tmp_path):
    half = checkpoint.begin(tmp_path, Progress(round=1, sigma=1.0), {}, {})
    save(tmp_path, 2)
    assert not half.folder.folders()
    again = save(tmp_path, 2)  # another attempt at the same round
    later = checkpoint.begin(tmp_path, Progress(round=3, sigma=1.0), {}, {})  # perhaps still being written
    assert rounds(tmp_path) == [2, 3]
    assert checkpoint.latest(tmp_path) == again
    checkpoint.clear_unfinished(Folder.of(tmp_path))
    assert rounds(tmp_path) == [2]
    later.folder.delete()
    (tmp_path / "notes").mkdir()  # the user's own
    save(tmp_path, 3, Keep(1))
    assert (tmp_path / "notes").exists()


def test_rounds_are_ordered_as_numbers(tmp_path):
    for round_ in (999_999, 1_000_000):
        save(tmp_path, round_, Keep(None))
    assert checkpoint.latest(tmp_path).progress.round == 1_000_000


# Which stay


@given(st.lists(st.floats(0, 1) | st.just(float("-inf")), min_size=1, max_size=12), st.integers(1, 5), st.booleans())
def test_the_rule_keeps_the_best_and_the_newest(scores, count, by_score):
    kept = Keep(count, "test_accuracy" if by_score else None).chosen(scores)
    newest = len(scores) - 1
    assert newest in kept
    if not by_score:
        assert kept == set(range(len(scores))[-count:])
    else:
        assert min(count, len(scores)) <= len(kept) <= count + 1
        worst = min((scores[i] for i in kept if i != newest), default=float("inf"))
        assert all(scores[i] <= worst for i in range(newest) if i not in kept)


def test_rules_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match=r"Keep\.count is 0, but it must be a whole number of at least 1"):
        Keep(0)
    with pytest.raises(ConfigError, match=r"Keep\.order is 'up'"):
        Keep(1, "test_loss", "up")


@pytest.mark.parametrize(("order", "expected"), [("max", [2, 4, 6]), ("min", [1, 5, 6])])
def test_the_best_stay_as_checkpoints_come(tmp_path, order, expected):
    keep = Keep(2, "validation_accuracy", order)
    for round_, accuracy in enumerate([0.1, 0.9, 0.3, 0.8, 0.2, 0.5], start=1):
        save(tmp_path, round_, keep, validation_accuracy=accuracy)
    assert rounds(tmp_path) == expected
    chosen = checkpoint.best(tmp_path, "validation_accuracy", order)
    assert chosen.progress.round == (2 if order == "max" else 1)
    assert checkpoint.latest(tmp_path).progress.round == 6


def test_a_checkpoint_without_the_metric_counts_as_the_worst_and_damage_elsewhere_ends_no_run(tmp_path):
    keep = Keep(1, "test_loss", "min")
    save(tmp_path, 1, keep, test_loss=5.0)
    with pytest.warns(UserWarning, match="round 2 has no test_loss to be kept by: it counts as the worst"):
        save(tmp_path, 2, keep)
    assert rounds(tmp_path) == [1, 2]
    (next(tmp_path.glob("round-000001-*")) / "manifest.json").write_text("damaged")
    save(tmp_path, 3, keep, test_loss=6.0)
    assert rounds(tmp_path) == [3]
    assert checkpoint.best(tmp_path, "accuracy") is None


def test_a_run_keeps_its_best_and_says_which(tmp_path):
    settings = Run(tmp_path / "run", keep=1, best_by="test_loss", order="max")  # the first is the worst, so "best"
    result = run(tmp_path / "run", rounds=6, run_config=settings, checkpoint_every=1, evaluate_every=1)
    losses = [row["test_loss"] for row in result.history]
    worst = losses.index(max(losses)) + 1
    assert rounds(result.path / "checkpoints") == sorted({worst, 6})
    assert result.best_checkpoint.name.startswith(f"round-{worst:06d}-")
    assert result.checkpoint.name.startswith("round-000006-")
    assert run(tmp_path / "plain", rounds=1).best_checkpoint is None


@pytest.mark.parametrize("metric", ["test_acuracy", "validation_loss"])
def test_a_metric_that_no_row_has_is_refused_before_anything_is_written(tmp_path, metric):
    with pytest.raises(
        ConfigError,
        match=rf"checkpoint_score_attribute is '{metric}', .* does not measure that: use one of test_loss, test_acc",
    ):
        run(tmp_path / "run", run_config=Run(tmp_path / "run", best_by=metric))
    assert not (tmp_path / "run").exists()


def test_all_metrics_that_may_be_named_are_in_rows(tmp_path):
    held_out = Data(train="digits", test="digits:test", validation=0.2)
    result = run(tmp_path / "run", rounds=1, data=held_out)
    from pisa_ray.trainer.config import Config
    from pisa_ray.trainer.prepare import prepare

    names = prepare(Config(model=plain_net, data=held_out, partition=uneven())).metrics
    assert {"validation_accuracy", "test_loss"} <= set(names) <= set(result.history[-1])


def test_environments_are_compared():
    saved = {"torch": "2.1", "threads": 1, "device": "cpu"}
    assert check_environment(saved, dict(saved)) == []
    with pytest.raises(ConfigError, match=r"torch 2.1, and goes on with 2.2, .* or set exact=False to go on"):
        check_environment(saved, saved | {"torch": "2.2"})
    told = check_environment(saved, {"torch": "2.2", "threads": 1, "cpu_capability": "AVX2"}, exact=False)
    assert [sentence.split(" with ")[1][:12] for sentence in told] == ["cpu_capabili", "device cpu, ", "torch 2.1, a"]
