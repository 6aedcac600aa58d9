"""What goes wrong in a run: processes die, user code raises, numbers stop being finite."""

from __future__ import annotations

import json
import os

import pytest
import torch
from runs import events, run
from torch import nn

from pisa_ray import ConfigError, NonFiniteError, PisaError
from pisa_ray.trainer import checkpoint


class Counting(nn.Module):
    """A linear model whose third training batch and those after are not what they should be."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.layer, self.fault = nn.Linear(64, 10), fault
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1
        if self.seen >= 3:
            if self.fault == "crash":
                os._exit(1)
            if self.fault == "raise":
                raise KeyError("a bug of the user's")
            return self.layer(x) * float(self.fault)
        return self.layer(x)


@pytest.mark.parametrize("fault", ["nan", "inf"])
def test_a_run_that_goes_non_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path, fault):
    with pytest.raises(NonFiniteError, match=r"round 3 .*shard 0 .*sigma .*usually helps"):
        run(tmp_path / "run", model=lambda: Counting(fault), checkpoint_every=1, evaluate_every=1)
    saved = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert saved.progress.round == 2
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed"
    assert "round 3" in result["message"]
    with pytest.raises(NonFiniteError, match="round 3"):  # and it can be resumed, to the same end
        run(tmp_path / "run", model=lambda: Counting(fault), checkpoint_every=1, evaluate_every=1, resume=True)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_an_exception_in_user_code_is_told_as_such(tmp_path):
    with pytest.raises(
        PisaError,
        match=r"^shard \d in round 3: KeyError: .a bug of the user's. \(at test_failures.py:\d+ in forward\)\.$",
    ):
        run(tmp_path / "run", workers=2, model=lambda: Counting("raise"))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_crash_that_always_comes_back_ends_the_run(tmp_path):
    with pytest.raises(PisaError, match="the workers of shard 0 died 3 times in round 3: look for a crash"):
        run(tmp_path / "run", workers=1, model=lambda: Counting("crash"), checkpoint_every=1)
    assert len(events(tmp_path / "run", "worker_died")) == 3
    # The one of round 2 was being written when its writer died.
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").progress.round in (1, 2)


def test_an_exception_in_this_process_is_recorded(tmp_path):
    with pytest.raises(PisaError, match="shard 0 in round 3: KeyError"):
        run(tmp_path / "run", model=lambda: Counting("raise"), evaluate_every=1)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["rounds"]) == ("failed", 2)
    assert "KeyError" in result["message"]


def test_another_model_is_refused_on_resume(tmp_path):
    run(tmp_path / "run", rounds=2, model=lambda: nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 10)))
    with pytest.raises(ConfigError, match="made with other model"):
        run(tmp_path / "run", rounds=4, resume=True, model=lambda: nn.Linear(64, 10))


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damaged_checkpoints_are_refused(tmp_path, damage):
    result = run(tmp_path / "run", rounds=4)
    file = result.checkpoint / "shards-0.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(content[:-1])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    with pytest.raises(ConfigError, match=r"missing or cut off|has been altered"):
        run(tmp_path / "run", rounds=8, resume=True)


def test_an_unfinished_checkpoint_is_not_one(tmp_path):
    straight = run(tmp_path / "straight", rounds=8)
    run(tmp_path / "run", rounds=4)
    part = tmp_path / "run" / "checkpoints" / ".round-000006-aaaa"
    part.mkdir()
    (part / "shards-0.safetensors").write_bytes(b"half")
    (tmp_path / "run" / "checkpoints" / "round-000007").mkdir()  # no manifest
    assert run(tmp_path / "run", rounds=8, resume=True).weights_sha256 == straight.weights_sha256


def test_other_data_or_settings_are_refused_on_resume(tmp_path):
    run(tmp_path / "run", rounds=2)
    with pytest.raises(ConfigError, match="batch_size = 16, not 8"):
        run(tmp_path / "run", rounds=4, resume=True, batch_size=8)
    with pytest.raises(ConfigError, match="rounds is 1, but the run was started with 2"):
        run(tmp_path / "run", rounds=1, resume=True)
    with pytest.raises(ConfigError, match="holds a run already"):
        run(tmp_path / "run", rounds=4)


def test_resume_without_a_checkpoint_starts_from_round_0(tmp_path, capsys):
    straight = run(tmp_path / "straight", rounds=3)
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "partition.json"):
        (tmp_path / "run" / name).write_text((straight.path / name).read_text())
    result = run(tmp_path / "run", rounds=3, resume=True, progress=True)
    assert "no complete checkpoint: starting from round 0" in capsys.readouterr().err
    assert result.weights_sha256 == straight.weights_sha256
