"""Losses and metrics by name, of one's own, and several together."""

import numpy as np
import pytest
import torch
from torch import nn

from pisa_ray import IID, SISAD, ConfigError, Data, PisaTrainer
from pisa_ray.cli.main import main
from pisa_ray.trainer.objective import LOSSES

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
Y = (X @ np.ones((3, 2), np.float32)).clip(-1, 1)

OWN = """
import torch

def loss(output, target):
    return (output - target).abs().mean() * 2

def distance(output, target):
    return {"distance": (output - target).norm(dim=1)}

def largest(output, target):
    return {"largest": (output - target).abs().amax(1)}
"""


def run(path, **changes):
    arguments = {"loss": "huber", "metrics": None, "rounds": 2, "scaling_config": 0, "progress": False} | changes
    data = Data(train=(X, Y), test=(X, Y))
    algorithm = SISAD(sigma=10, rho=90)
    trainer = PisaTrainer(
        model=lambda: nn.Linear(3, 2), data=data, partition=IID(2), algorithm=algorithm, run_config=path, **arguments
    )
    return trainer.fit().metrics


@pytest.mark.parametrize("name", LOSSES.known())
def test_a_loss_by_name_is_torchs(name):
    output, target = torch.randn(4, 3), torch.tensor([0, 2, 1, 0])
    functional = nn.functional
    theirs = {
        "cross_entropy": functional.cross_entropy,
        "mse": functional.mse_loss,
        "l1": functional.l1_loss,
        "huber": functional.huber_loss,
        "bce": functional.binary_cross_entropy_with_logits,
    }[name]
    found = LOSSES.chosen(name, "loss")
    if name == "cross_entropy":
        assert torch.equal(found(output, target), theirs(output, target))
    else:
        assert torch.equal(found(output[:, :1], (target > 0)), theirs(output[:, 0], (target > 0).float()))


def test_several_metrics_are_measured_together(tmp_path, monkeypatch):
    (tmp_path / "my_objectives.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    measured = run(
        tmp_path / "a", loss="my_objectives:loss", metrics=["my_objectives:distance", "my_objectives:largest"]
    )
    assert {"test_distance", "test_largest"} <= measured.keys()
    with pytest.raises(ConfigError, match="metrics give 'distance' twice"):
        run(tmp_path / "b", metrics=["my_objectives:distance", "my_objectives:distance"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loss": "hubber"}, "loss is 'hubber', but it must be one of cross_entropy, mse, l1, huber, bce, or 'package"),
        ({"loss": nn.HuberLoss}, "loss is the class HuberLoss, but a function is needed"),
        ({"metrics": "f1"}, "metrics is 'f1', but it must be accuracy, or 'package.module:function'."),
        ({"metrics": ["accuracy", 5]}, r"metrics\[1\] is 5, but it must be a text or a function."),
        ({"loss": "nowhere:f"}, "loss is 'nowhere:f', but it must be 'package.module:function'"),
    ],
)
def test_what_is_none_is_refused(tmp_path, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        run(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_file_names_them_and_they_are_measured_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_losses_of_a_file.py").write_text(
        "from torch.nn import functional\n"
        "def loss(output, target):\n    return functional.cross_entropy(output, target, label_smoothing=0.1)\n"
        "def margin(output, target):\n    return {'margin': output.amax(1) - output.gather(1, target[:, None])[:, 0]}\n"
    )
    (tmp_path / "a.yaml").write_text(
        "data: {dataset: digits}\npartition: {kind: iid, shards: 2}\nmodel: {kind: mlp, hidden: [4]}\nrounds: 2\n"
        "workers: 0\nloss: my_losses_of_a_file:loss\nmetrics: [accuracy, 'my_losses_of_a_file:margin']\n"
    )
    assert main(["train", "a.yaml", "--out", "run", "--quiet"]) == 0
    assert main(["evaluate", "run"]) == 2
    assert "loss is 'my_losses_of_a_file:loss', code that" in capsys.readouterr().err
    assert main(["evaluate", "run", "--trust"]) == 0
    assert "margin" in capsys.readouterr().out
    assert main(["train", "a.yaml", "--set", "metrics=f1", "--out", "other", "--quiet"]) == 2
    assert "metrics is 'f1', but it must be accuracy, or" in capsys.readouterr().err
