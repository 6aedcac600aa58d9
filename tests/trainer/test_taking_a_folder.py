"""When a run directory is taken: as round 1 is about to begin. What is refused before leaves nothing, anywhere."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyarrow import fs
from runs import run, trajectory
from torch import nn

from pisa_ray import IID, ConfigError, Data, PisaError, PisaTrainer
from pisa_ray.cli.compare import compare
from pisa_ray.cli.main import main
from pisa_ray.engine.files import Folder
from pisa_ray.errors import StoppedWaitingError
from pisa_ray.schedulers import SigmaSchedule
from pisa_ray.trainer import attempts as trainers
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.settings import Run
from pisa_ray.trainer.storage import check_storage


def failing(grow):
    """A schedule that does something else."""
    return type("Fails", (SigmaSchedule,), {"grow": lambda self, sigma, round_, memory: grow(sigma, round_)})()


def everything(path):
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


def table(path, x, labels=(0, 1, 2)):
    y = np.resize(labels, len(x))
    pq.write_table(pa.table({"a": x, "b": np.arange(len(x)) % 7 / 7, "y": y}), path)
    return path


class Stuck(nn.Module):
    """Its loss does not depend on its weights in the end."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 3)

    def forward(self, x):
        return self.inner(x) * 0


GOOD = np.linspace(-1, 1, 30)
BAD = {
    "one class": {"data": (GOOD, (0,)), "model": lambda: nn.Linear(2, 1)},
    "zero gradient": {"data": (0 * GOOD, (0, 1, 2)), "model": Stuck},
    "huge inputs": {"data": (GOOD + 1e30, (0, 1, 2)), "model": lambda: nn.Linear(2, 3)},
}


def arguments(folder, x=GOOD, labels=(0, 1, 2), **changes):
    return {
        "model": lambda: nn.Linear(2, 3),
        "data": Data(train=str(table(folder / "t.parquet", x, labels)), input=["a", "b"], label="y"),
        "partition": IID(3),
        "rounds": 2,
        "batch_size": 8,
        "scaling_config": 0,
        "progress": False,
        **changes,
    }


@pytest.mark.parametrize("case", BAD)
def test_a_start_that_cannot_be_leaves_nothing(tmp_path, case):
    x, labels = BAD[case]["data"]
    given = arguments(tmp_path, x, labels, model=BAD[case]["model"], run_config=tmp_path / "runs" / "deep" / "a")
    with pytest.raises(ConfigError):
        PisaTrainer(**given).fit()
    assert everything(tmp_path) == ["t.parquet"]
    again = arguments(tmp_path, run_config=tmp_path / "runs" / "deep" / "a")
    assert PisaTrainer(**again).fit().status == "finished"  # the same name, with repaired data


def stored(folder):
    """A storage that is no folder of this machine, as far as anybody can tell."""
    return Folder("made/for/run", fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem()))


def test_a_start_that_cannot_be_leaves_nothing_in_a_storage_either(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    place = Run(tmp_path / "runs" / "a", storage=stored(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match="automatic start"):
        PisaTrainer(**arguments(tmp_path, model=Stuck, run_config=place)).fit()
    assert everything(tmp_path) == ["elsewhere", "t.parquet"]
    result = PisaTrainer(**arguments(tmp_path, run_config=place)).fit()
    assert result.status == "finished"
    assert (tmp_path / "elsewhere" / "made" / "for" / "run" / "result.json").exists()


def test_the_probe_of_a_storage_keeps_what_is_there(tmp_path):
    place = stored(tmp_path)
    check_storage(place)
    assert everything(tmp_path) == []
    (tmp_path / "made" / "mine").mkdir(parents=True)
    check_storage(place)
    assert everything(tmp_path) == ["made", "made/mine"]
    (tmp_path / "made" / "for").write_text("a file")
    with pytest.raises(ConfigError, match=r"the storage .* cannot be written"):
        check_storage(place)
    assert everything(tmp_path) == ["made", "made/for", "made/mine"]


@pytest.mark.parametrize(
    "error", [ConfigError, PisaError, StoppedWaitingError, OSError, KeyboardInterrupt, RuntimeError]
)
def test_whatever_ends_a_start_leaves_nothing(tmp_path, monkeypatch, error):
    """No room for workers, the user's Ctrl-C, a crash: the folder is as free as before."""

    def fails(*given):
        raise error("no")

    monkeypatch.setattr(trainers, "measured", fails)
    with pytest.raises(PisaError if error is OSError else error):
        run(tmp_path / "run")
    assert everything(tmp_path) == []


@pytest.fixture
def fails_in_round_1(monkeypatch):
    def grow(sigma, round_):
        raise ValueError("in round 1")

    def begin(path, **changes):
        return run(path, sigma_schedule=failing(grow), **changes)

    return begin


def test_a_run_that_never_finished_a_round_is_replaced_without_a_word(tmp_path, fails_in_round_1):
    with pytest.raises(ValueError, match="in round 1"):
        fails_in_round_1(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"
    (tmp_path / "run" / "shards-1-1.json").write_text('{"remove": 0, "add": null}')  # asked of the other one
    result = run(tmp_path / "run", method="nsisa")
    assert result.status == "finished"
    assert trajectory(result) == trajectory(run(tmp_path / "straight", method="nsisa"))
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert "failed" not in kinds
    assert kinds.count("finished") == 1


def test_resuming_a_run_that_never_finished_a_round_begins_one_whatever_that_was(tmp_path, fails_in_round_1, capsys):
    with pytest.raises(ValueError, match="in round 1"):
        fails_in_round_1(tmp_path / "run")
    result = run(tmp_path / "run", method="nsisa", resume=True)
    assert trajectory(result) == trajectory(run(tmp_path / "straight", method="nsisa"))


UNFINISHED = "checkpoints/round-000003-0123abcd/shards-0.safetensors"


@pytest.mark.parametrize(
    "left",
    [
        [],
        [".lock"],
        ["partition.json"],
        ["config.yaml"],
        ["config.yaml", "events.jsonl"],
        ["metrics.jsonl"],
        [UNFINISHED],
    ],
)
def test_what_a_driver_leaves_that_was_killed_before_its_first_round(tmp_path, left):
    for name in left:
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}" if name.endswith(".yaml") else "")
    result = run(tmp_path / "run")
    assert result.status == "finished"
    assert not list((tmp_path / "run").glob("*/*-0123abcd"))


def test_a_run_that_has_finished_something_is_not_replaced(tmp_path):
    run(tmp_path / "run")
    before = everything(tmp_path)
    for keep in ("metrics.jsonl", "checkpoints"):
        with pytest.raises(ConfigError, match="holds a run already"):
            run(tmp_path / "run")
        assert everything(tmp_path) == before
        (tmp_path / "run" / "metrics.jsonl").rename(tmp_path / "run" / "away") if keep == "metrics.jsonl" else None
        before = everything(tmp_path)
    (tmp_path / "run" / "config.yaml").unlink()  # what it was is not known any more, but it is there
    with pytest.raises(ConfigError, match="holds a run already"):
        run(tmp_path / "run")


def test_a_refusal_that_comes_too_late_is_a_failure(tmp_path, monkeypatch):
    """Status 2 says that nothing was written."""

    def grow(sigma, round_):
        raise ConfigError("row 3 cannot be decoded.")

    with pytest.raises(PisaError, match="row 3 cannot be decoded") as error:
        run(tmp_path / "run", sigma_schedule=failing(grow))
    assert not isinstance(error.value, ConfigError)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"


def test_a_folder_that_cannot_hold_a_run_gets_none_of_it(tmp_path, monkeypatch):
    def record(self, config):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunDirectory, "record", record)
    with pytest.raises(ConfigError, match=r"cannot be written .*No space left"):
        run(tmp_path / "runs" / "run")
    assert everything(tmp_path) == []


def test_a_refused_resume_from_a_storage_copies_nothing(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    storage = stored(tmp_path / "elsewhere")
    run(tmp_path / "run", run_config=Run(tmp_path / "run", storage=storage))
    with pytest.raises(ConfigError, match="seed"):
        run(tmp_path / "other", run_config=Run(tmp_path / "other", storage=storage), resume=True, seed=1)
    assert not (tmp_path / "other").exists()
    longer = run(tmp_path / "other", run_config=Run(tmp_path / "other", storage=storage), resume=True, rounds=9)
    assert trajectory(longer)[-1] == trajectory(run(tmp_path / "straight", rounds=9))[-1]


# The command line


COMPARE = {
    "base": {"data": {"dataset": "digits"}, "model": {"kind": "mlp", "hidden": [4]}, "rounds": 2, "batch_size": 16},
    "algorithms": {"one": {"algorithm": {"kind": "sisa", "sigma": 1, "rho": 1}}},
    "partitions": {"even": {"kind": "iid", "shards": 2}},
    "score": "test_accuracy",
}


def test_a_comparison_without_a_cluster_leaves_nothing(tmp_path, monkeypatch):
    from pisa_ray.cli.compare import run as running

    def refuses(*_, **__):
        raise ConfigError("ray.address is 'nowhere', but Ray cannot be reached there.")

    monkeypatch.setattr(running, "ray_session", refuses)
    with pytest.raises(ConfigError, match="nowhere"):
        compare(COMPARE, tmp_path / "out" / "deep", progress=False)
    assert everything(tmp_path) == []


def test_a_comparison_that_came_to_nothing_is_replaced(tmp_path, monkeypatch):
    comparing = importlib.import_module("pisa_ray.cli.compare.compare")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "compare.yaml").write_text("base: {}\n")
    monkeypatch.setattr(comparing, "run_cells", lambda cells, *rest: rest[2]() or False)
    assert compare(COMPARE, tmp_path / "out", progress=False).status == "interrupted"
    assert yaml.safe_load((tmp_path / "out" / "compare.yaml").read_text())["base"]["rounds"] == 2
    run(tmp_path / "out" / "runs" / "one" / "even" / "seed-0")
    with pytest.raises(ConfigError, match="holds a comparison already"):
        compare(COMPARE, tmp_path / "out", progress=False)


def test_a_second_try_after_status_2_needs_no_other_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "t.parquet", 0 * GOOD, (0, 0))
    config = {
        "data": {"train": "t.parquet", "input": ["a"], "label": "y"},
        "partition": {"kind": "iid", "shards": 2},
        "model": {"kind": "mlp", "hidden": [4]},
        "rounds": 2,
        "workers": 0,
    }
    Path("c.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "c.yaml", "--quiet"]) == 2
    assert everything(tmp_path) == ["c.yaml", "t.parquet"]
    table(tmp_path / "t.parquet", GOOD)
    assert main(["train", "c.yaml", "--quiet"]) == 0


@pytest.mark.parametrize("words", [["resize", "run", "2"], ["shards", "run", "--remove", "0"]])
def test_nothing_can_be_asked_of_a_run_that_is_still_starting(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    with RunDirectory(tmp_path / "run").lock():
        assert main(words) == 2
    assert "is still starting: ask again when its first round has begun" in capsys.readouterr().err
    assert everything(tmp_path) == []
