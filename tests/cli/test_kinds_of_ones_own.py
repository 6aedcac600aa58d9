"""A kind of one's own is one class in one file, named as package.module:Class, and is like any other."""

import copy
import sys
from pathlib import Path

import pytest
import yaml

from pisa_ray.algorithm.method import Method
from pisa_ray.cli.main import main
from pisa_ray.data import Partition
from pisa_ray.fields import Count
from pisa_ray.kinds import Kind
from pisa_ray.schedulers import SigmaSchedule

OWN = '''
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge

from pisa_ray.algorithm import FedAvg
from pisa_ray.data import Partition
from pisa_ray.fields import Count
from pisa_ray.schedulers import SigmaSchedule


@dataclass(frozen=True, kw_only=True)
class Half(FedAvg):
    """FedAvg that goes a share of the way."""

    share: Annotated[float, Ge(0)] = 0.5

    def update(self, update, memory):
        torch.add(update.w, self._mean(update) * self.share, out=update.out)


@dataclass(frozen=True)
class Doubling(SigmaSchedule):
    after: Count = 2

    def grow(self, sigma, round_, memory=None):
        return 2 * sigma if round_ == self.after else sigma


@dataclass(frozen=True)
class Striped(Partition):
    shards: Count

    def split(self, source, seed):
        return [np.arange(i, source.rows, self.shards) for i in range(self.shards)]
'''

FILE = """
data: {dataset: digits}
partition: {kind: 'kinds_of_mine:Striped', shards: 3}
model: {kind: mlp, hidden: [4]}
algorithm: {kind: 'kinds_of_mine:Half', lr: 0.1, share: 0.25}
sigma_schedule: {kind: 'kinds_of_mine:Doubling', after: 2}
rounds: 3
evaluate_every: 1
workers: 0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kinds_of_mine.py").write_text(OWN)
    (tmp_path / "a.yaml").write_text(FILE)
    return tmp_path


def test_they_train_are_recorded_resumed_and_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "a.yaml", "--out", "run", "--quiet"]) == 0
    recorded = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert recorded["algorithm"]["kind"] == "kinds_of_mine:Half"
    assert recorded["algorithm"]["share"] == 0.25
    assert recorded["partition"] == {"kind": "kinds_of_mine:Striped", "shards": 3}
    assert recorded["sigma_schedule"] == {"kind": "kinds_of_mine:Doubling", "after": 2}
    assert main(["train", "a.yaml", "--set", "rounds=4", "--resume", "--out", "run", "--quiet"]) == 0
    assert main(["train", "a.yaml", "--set", "algorithm.share=1", "--resume", "--out", "run", "--quiet"]) == 2
    assert "started with algorithm.share = 0.25, not 1.0" in capsys.readouterr().err
    assert main(["evaluate", "run"]) == 2
    assert "is 'kinds_of_mine:" in capsys.readouterr().err
    assert main(["evaluate", "run", "--trust"]) == 0


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("algorithm.share=-1", "algorithm.share is -1, but it must be a finite number of at least 0."),
        ("algorithm.shar=1", "algorithm.shar is not a setting: the nearest one is share."),
        ("algorithm={kind: 'kinds_of_mine:Striped'}", "that is no class derived from pisa_ray's Method."),
        ("partition={kind: 'kinds_of_mine:Nothing'}", "partition.kind is 'kinds_of_mine:Nothing', but it must be"),
        ("partition={kind: 'kinds_of_mine:Striped'}", "partition.shards is missing and has no default: add it."),
        ("sigma_schedule={kind: 'os:system'}", "os is a part of Python"),
    ],
)
def test_what_is_wrong_with_them_is_said_as_ever(
    folder: Path, setting: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "a.yaml", "--set", setting, "--out", "run", "--quiet"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (folder / "run").exists()


@pytest.mark.parametrize("family", [Method, Partition, SigmaSchedule], ids=lambda family: family.__name__)
def test_a_class_with_a_kind_is_known_at_once(family: type[Kind]) -> None:
    try:
        new: type[Kind] = type("New", (family,), {"kind": "new_of_a_test", "__annotations__": {"number": Count}})
        assert family.known()["new_of_a_test"] is new
    finally:
        family.kinds.pop("new_of_a_test", None)


def test_another_process_finds_their_classes_where_they_were_found(folder: Path) -> None:
    method = Method.read({"kind": "kinds_of_mine:Half", "lr": 0.1}, "algorithm")
    sys.modules.pop("kinds_of_mine")  # as in a process that has not imported it
    again = copy.copy(method)  # by what a pickle would hold
    assert type(again) is not type(method)
    assert again.written() == method.written()
