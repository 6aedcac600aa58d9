"""What installed packages name by entry points is used by its name: kinds, and functions in a registry."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pisa_ray.algorithm.method import Method
from pisa_ray.cli.main import main
from pisa_ray.errors import ConfigError
from pisa_ray.kinds import look_through
from pisa_ray.models import MODELS
from pisa_ray.trainer.objective import LOSSES, METRICS

PACKAGE = """
import torch
from pisa_ray.algorithm import FedAvg

class Halfway(FedAvg):
    kind = "halfway"

    def update(self, update, memory):
        torch.add(update.w, self._mean(update) / 2, out=update.out)

def linear(input_shape, outputs, bias=True):
    size = torch.Size(input_shape).numel()
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(size, outputs, bias))

def smooth(output, target):
    return torch.nn.functional.cross_entropy(output, target, label_smoothing=0.1)

def top2(output, target):
    return {"top2": (output.topk(2).indices == target[:, None]).any(1)}
"""
ENTRY_POINTS = """
[pisa_ray.algorithm]
halfway = package_of_a_friend:Halfway
[pisa_ray.model]
linear = package_of_a_friend:linear
mlp = package_of_a_friend:linear
[pisa_ray.loss]
smooth = package_of_a_friend:smooth
gone = package_of_a_friend:gone
[pisa_ray.metrics]
top2 = package_of_a_friend:top2
"""
FILE = """
data: {dataset: digits}
partition: {kind: iid, shards: 2}
model: {kind: linear, args: {bias: false}}
algorithm: {kind: halfway, lr: 0.1}
loss: smooth
metrics: [accuracy, top2]
rounds: 2
workers: 0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the package is found, as if it were installed."""
    (tmp_path / "package_of_a_friend.py").write_text(PACKAGE)
    (tmp_path / "friend-1.dist-info").mkdir()
    (tmp_path / "friend-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: friend\nVersion: 1\n")
    (tmp_path / "friend-1.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "a.yaml").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    look_through.cache_clear()
    yield tmp_path
    look_through.cache_clear()
    Method.kinds.pop("halfway", None)
    sys.modules.pop("package_of_a_friend", None)


def test_a_run_is_made_of_them_by_name(folder: Path) -> None:
    assert main(["train", "a.yaml", "--out", "run", "--quiet"]) == 0
    recorded = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    names = recorded["algorithm"]["kind"], recorded["model"]["kind"], recorded["loss"], recorded["metrics"]
    assert names == ("halfway", "linear", "smooth", ["accuracy", "top2"])
    assert '"test_top2"' in (folder / "run" / "metrics.jsonl").read_text()
    assert main(["train", "a.yaml", "--set", "rounds=3", "--resume", "--out", "run", "--quiet"]) == 0
    assert main(["evaluate", "run"]) == 0


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "model.kind=lineal",
            "model.kind is 'lineal', but it must be one of mlp, lenet, resnet18, resnet34, vgg11, dens",
        ),
        ("model.args={bia: 1}", "model could not be made"),
        (
            "loss=smoth",
            "loss is 'smoth', but it must be one of cross_entropy, mse, l1, huber, bce, smooth, gone, or 'pa",
        ),
        ("loss=gone", "the entry point gone in pisa_ray.loss is 'package_of_a_friend:gone', but it must be 'package"),
        ("metrics=top3", "metrics is 'top3', but it must be one of accuracy, top2, or 'package.module:function'."),
        ("algorithm.kind=half", "halfway, mifa, moon"),
    ],
)
def test_what_is_wrong_with_them_is_said_as_ever(
    folder: Path, setting: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "a.yaml", "--set", setting, "--out", "run", "--quiet"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (folder / "run").exists()


@pytest.mark.usefixtures("folder")
def test_a_function_is_imported_when_it_is_chosen_and_none_takes_the_place_of_ours() -> None:
    assert MODELS.chosen("mlp", "model.kind").__module__ == "pisa_ray.models.zoo"
    assert METRICS.chosen("accuracy", "metrics")
    with pytest.raises(ConfigError, match=r"linear, or 'package\.module:function'"):
        MODELS.chosen("lineal", "model.kind")
    assert "package_of_a_friend" not in sys.modules
    assert LOSSES.chosen("smooth", "loss")
    assert "package_of_a_friend" in sys.modules
