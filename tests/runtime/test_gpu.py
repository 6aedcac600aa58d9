"""On a GPU: every method computes what it computes on the CPU, and the bits are the same however the run is cut up."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from runs import METHODS, events, plain_net, run, small_job, states, trajectory
from safetensors.torch import load_file
from torch import nn

from pisa_ray import Clip, ConfigError, Data, Median
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.engine.worker import Worker
from pisa_ray.trainer.settings import Scaling

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

ALONE, TWO = Scaling(0, 0, gpus=1), Scaling(2, 2, gpus=0.5)


class Normalised(nn.Module):
    """Convolutions, BatchNorm and dropout: buffers, random numbers and cudnn's kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
            nn.Linear(512, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.view(-1, 1, 8, 8))


def weights(result) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in load_file(result.model_path).values()])


def distance(one, other) -> float:
    return float((weights(one) - weights(other)).norm() / weights(other).norm())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_computes_what_it_does_on_the_cpu(tmp_path, method):
    there = run(tmp_path / "gpu", method=method, scaling_config=ALONE)
    here = run(tmp_path / "cpu", method=method)
    assert distance(there, here) < 1e-2
    assert there.metrics["train_loss"] == pytest.approx(here.metrics["train_loss"], rel=2e-2)
    assert there.metrics["sample_gradients"] == here.metrics["sample_gradients"]


@pytest.mark.parametrize("robust", [None, Median(), Clip()])
def test_an_automatic_start_and_half_of_the_shards(tmp_path, robust):
    more = {"algorithm": None, "sigma_schedule": None, "robust": robust, "data": Data(train="digits", validation=0.1)}
    more["participation"] = 1.0 if robust else 0.5
    there = run(tmp_path / "gpu", scaling_config=ALONE, **more)
    here = run(tmp_path / "cpu", **more)
    (started,) = events(there.path, "started")
    (expected,) = events(here.path, "started")
    assert started["sigma"] == pytest.approx(expected["sigma"], rel=2e-2)
    assert there.metrics["validation_loss"] == pytest.approx(here.metrics["validation_loss"], rel=5e-2)


def test_autocast(tmp_path):
    exact, rough = (run(tmp_path / str(k), scaling_config=ALONE, autocast=k > 0) for k in range(2))
    assert {t.dtype for t in load_file(rough.model_path).values()} == {torch.float32}
    assert 0 < distance(rough, exact) < 5e-2


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("method", ["sisa", "sisa_d", "nsisa", "adam"])
def test_workers_that_share_a_gpu_give_the_bits_of_one_process(tmp_path, method):
    alone, again = (run(tmp_path / str(k), model=Normalised, method=method, scaling_config=ALONE) for k in range(2))
    two = run(tmp_path / "two", model=Normalised, method=method, scaling_config=TWO)
    assert alone.weights_sha256 == again.weights_sha256 == two.weights_sha256
    assert trajectory(alone) == trajectory(two)
    assert states(alone) == states(two)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_killed_worker_and_a_resume(tmp_path, monkeypatch):
    more = {"model": Normalised, "method": "sisa_d", "rounds": 16, "checkpoint_every": 5}
    undisturbed = run(tmp_path / "undisturbed", scaling_config=ALONE, **more)

    from pisa_ray.actors import RayFleet

    begin = RayFleet.begin

    def begin_and_kill(self, spec, *rest, **options):
        begin(self, spec, *rest, **options)
        if spec.number == 7:
            os.kill(self.crew.members[0].info.pid, signal.SIGKILL)

    monkeypatch.setattr(RayFleet, "begin", begin_and_kill)
    killed = run(tmp_path / "killed", scaling_config=TWO, **more)
    assert len(events(killed.path, "worker_died")) == 1
    assert states(killed) == states(undisturbed)

    monkeypatch.undo()
    run(tmp_path / "stopped", scaling_config=TWO, **{**more, "rounds": 10})
    resumed = run(tmp_path / "stopped", scaling_config=ALONE, resume=True, **more)
    assert states(resumed) == states(undisturbed)


def test_a_run_goes_on_elsewhere_but_not_as_if_nothing_had_changed(tmp_path):
    more = {"method": "sisa_d", "checkpoint_every": 3}
    run(tmp_path / "run", scaling_config=ALONE, rounds=3, **more)
    with pytest.raises(ConfigError, match="device"):
        run(tmp_path / "run", rounds=6, resume=True, **more)
    result = run(tmp_path / "run", rounds=6, resume=True, exact=False, **more)
    assert result.metrics["exact"] is False


def test_where_things_are():
    worker = Worker(small_job(model=plain_net), gpu=True, process_is_ours=False)
    worker.host(worker.job.present)
    worker.step(RoundSpec(1, 60.0, True), worker.model.published())
    state = worker.shards[0].state
    assert {t.device.type for t in (worker.model.parameters, state.dual, state.moment)} == {"cuda"}
    worker.prefetch([0])
    (ahead,) = worker.ahead.values()
    assert {part.device.type for part in ahead[1:]} == {"cuda"}
