"""docs/own-kinds.md does what it says: FedDyn from outside, through the command line."""

import json
import re
from pathlib import Path

import pytest
import yaml

from pisa_ray.cli.main import main
from pisa_ray.cli.recorded import prepared
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.changes import Asked, Changes

PAGE = Path(__file__).parents[2] / "docs" / "own-kinds.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("own")
    text = PAGE.read_text()
    blocks = re.findall(r"```(?:py|yaml)\n(.*?)```", text, re.S)
    for name, block in zip(("feddyn.py", "feddyn.yaml", "mine.py"), blocks, strict=True):
        (path / name).write_text(block)
    return path


def run(name, *settings):
    command = ["train", "feddyn.yaml", "--out", name, "--quiet"]
    assert main([*command, *(part for setting in settings for part in ("--set", setting))]) == 0
    return json.loads(Path(name, "result.json").read_text())


def test_it_is_better_than_fedavg_and_goes_on_after_a_stop_to_the_same_bits(folder, monkeypatch):
    monkeypatch.chdir(folder)
    here = run("here", "workers=0")
    assert (
        here["test_accuracy"]
        > 0.95
        > run("fedavg", "workers=0", "algorithm={kind: fedavg, lr: 0.1, steps: 10}")["test_accuracy"]
    )
    run("resumed", "workers=0", "rounds=15", "checkpoint.every=15")
    assert main(["train", "feddyn.yaml", "--set", "workers=0", "--resume", "--out", "resumed", "--quiet"]) == 0
    assert json.loads(Path("resumed", "result.json").read_text())["weights_sha256"] == here["weights_sha256"]


def test_a_shard_that_is_to_leave_is_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    values = yaml.safe_load((folder / "feddyn.yaml").read_text())
    with pytest.raises(ConfigError, match="shards cannot join or leave a run of FedDyn, whose consensus remembers"):
        Changes(prepared(values, folder, trust=True)).ask(Asked(remove=1))


@pytest.mark.parametrize("setting", ["robust=median", "asynchronous.quorum=0.5"])
def test_what_it_cannot_is_refused_by_what_it_declares(folder, monkeypatch, setting, capsys):
    monkeypatch.chdir(folder)
    assert main(["train", "feddyn.yaml", "--set", "workers=0", "--set", setting, "--out", "no", "--quiet"]) == 2
    assert "FedDyn" in capsys.readouterr().err


def test_a_model_a_loss_and_a_metric_are_named_beside_it(folder, monkeypatch):
    monkeypatch.chdir(folder)
    model = "model={factory: 'mine:tiny', args: {input_shape: [1, 8, 8], outputs: 10}}"
    found = run("mine", "workers=0", "rounds=2", model, "loss='mine:smooth'", "metrics=[accuracy, 'mine:top2']")
    assert found["test_top2"] > found["test_accuracy"]


@pytest.mark.ray
def test_workers_give_the_same_bits(folder, monkeypatch, ray_session):
    monkeypatch.chdir(folder)
    short = ("rounds=3", "participation=0.5")
    assert run("two", *short)["weights_sha256"] == run("none", *short, "workers=0")["weights_sha256"]
