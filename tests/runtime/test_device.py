"""What differs on a GPU, as far as a machine without one can tell."""

from __future__ import annotations

import pytest
import torch
from runs import run

from pisa_ray import ConfigError
from pisa_ray.engine.device import choose_device, to_device, to_host
from pisa_ray.engine.numerics import seed_globals
from pisa_ray.trainer.settings import Scaling


class Recorder:
    """Stands for a host tensor on a machine with a GPU."""

    def __init__(self):
        self.calls = []

    def pin_memory(self):
        self.calls.append("pin")
        return self

    def to(self, device, non_blocking):
        self.calls.append((device.type, non_blocking))
        return self


def test_copies_to_a_gpu_go_through_pinned_memory_and_do_not_block():
    recorder = Recorder()
    to_device(recorder, torch.device("cuda"))
    assert recorder.calls == ["pin", ("cuda", True)]


def test_on_the_cpu_nothing_is_copied():
    x = torch.arange(3.0)
    assert to_device(x, torch.device("cpu")) is x
    to_host(x)[0] = 5
    assert x[0] == 5


def test_the_device_is_chosen_by_what_was_reserved(monkeypatch):
    assert choose_device(gpu=False).type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(gpu=True).type == "cuda"
    assert choose_device(gpu=False).type == "cpu"  # also where there is one: the bits are those of CPU workers
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees none"):
        choose_device(gpu=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="torch sees none"):
        run(tmp_path / "run", scaling_config=Scaling(0, 0, gpus=1))


def test_autocast_keeps_parameters_duals_and_sums_in_float32(tmp_path):
    from safetensors.torch import load_file

    result = run(tmp_path / "run", autocast=True)
    for file in [result.model_path, *result.checkpoint.glob("*.safetensors")]:
        assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float32}


def test_seeding_leaves_nothing_behind():
    """torch.manual_seed would queue a stack trace per call where CUDA is built in but not in use."""
    before = len(torch.cuda._queued_calls)
    for number in range(20):
        seed_globals(number)
    assert len(torch.cuda._queued_calls) == before
    seed_globals(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
