"""Distorted shards are seen alike in training and evaluation, wherever they are; and the worst shard's numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from runs import run, trajectory
from torch import nn
from torch.utils.data import TensorDataset

from pisa_ray import (
    IID,
    SISA,
    ConfigError,
    Data,
    Distorted,
    FeatureNoise,
    LabelSkew,
    Noise,
    Recolour,
    Rotate,
    ShiftLabels,
)
from pisa_ray.data import Origin
from pisa_ray.engine.evaluation import means, worst
from pisa_ray.engine.worker import Worker
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


def images(x: torch.Tensor, training: bool) -> torch.Tensor:
    return x.view(-1, 1, 8, 8)


def flat_net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


DIGITS = Data(train="digits", test="digits:test", transform=images, validation=0.2)
EVERYTHING = Distorted(
    Distorted(Distorted(Distorted(LabelSkew(4, 3), Noise(0.3)), ShiftLabels(0.5)), Rotate(36)), Recolour(shards=(1, 3))
)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_distorted_shards_give_the_same_bits_anywhere(tmp_path):
    here, there = (run(tmp_path / str(w), workers=w, data=DIGITS, model=flat_net, partition=EVERYTHING) for w in (0, 2))
    assert here.weights_sha256 == there.weights_sha256
    assert trajectory(here) == trajectory(there)


def test_a_moved_shard_sees_the_same_batches_and_evaluates_alike():
    job = prepare(Config(model=flat_net, data=DIGITS, partition=EVERYTHING, batch_size=16)).job
    home, away = (Worker(job, process_is_ours=False) for _ in range(2))
    home.host(range(4))
    away.host([2])
    published = home.model.published()
    for count in (0, 1, 40):
        for a, b in zip(home.batch(2, count), away.batch(2, count), strict=True):
            assert torch.equal(a, b)
    for held_out in (False, True):
        at_home = home.evaluate_shards(published, range(4), held_out=held_out)
        assert away.evaluate_shards(published, [2], held_out=held_out) == {2: at_home[2]}


def test_every_row_is_distorted_as_itself():
    """Batches have rows in another order than evaluations; a row's label and image must be the same in both."""
    partition = Distorted(Distorted(IID(3), ShiftLabels(0.5, shards=None)), Rotate(36))
    job = prepare(Config(model=flat_net, data=DIGITS, partition=partition, batch_size=16)).job
    worker = Worker(job, process_is_ours=False)
    worker.host(range(3))
    for shard in range(3):
        rows = job.shards[shard][worker.shards[shard].own_rows.stream.positions(5)]
        x, y = job.train.read(rows).batch(np.arange(len(rows)))
        x, y = images(x, training=True), y.clone()
        for distortion in job.distortions:
            x, y = distortion(x, y, Origin(job.seed, shard, 3, rows))
        batch = worker.batch(shard, 5)
        assert torch.equal(batch[0], x)
        assert torch.equal(batch[1], y)


# A model that is always right about rows as they are stored


def one_hot(rows: int) -> TensorDataset:
    labels = torch.arange(rows) % 4
    return TensorDataset(torch.eye(4)[labels], labels)


class Right(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(9.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


@pytest.mark.parametrize("held_out", [True, False])
def test_evaluations_of_shards_see_distorted_rows_and_those_of_test_data_do_not(held_out):
    data = Data(train=one_hot(80), test=one_hot(8), validation=0.25)
    job = prepare(Config(model=Right, data=data, partition=Distorted(IID(4), ShiftLabels(shards=(2,))))).job
    worker = Worker(job, process_is_ours=False)
    worker.host(range(4))
    published = worker.model.published()
    sums = worker.evaluate_shards(published, range(4), held_out=held_out)
    assert [means([sums[i]])["accuracy"] for i in range(4)] == [1, 1, 0, 1]
    assert means(worker.evaluate(published, "test", [0]).values())["accuracy"] == 1


def test_evaluations_of_noisy_shards_have_no_noise():
    data = Data(train=one_hot(80), validation=0.25)
    noisy, plain = (
        prepare(Config(model=Right, data=data, partition=partition)).job for partition in (FeatureNoise(4, 5.0), IID(4))
    )
    found = []
    for job in (noisy, plain):
        worker = Worker(job, process_is_ours=False)
        worker.host(range(4))
        found.append(worker.evaluate_shards(worker.model.published(), range(4), held_out=True))
    assert found[0] == found[1]


def test_rows_tell_of_the_worst_shard(tmp_path):
    data = Data(train=one_hot(80), test=one_hot(8), validation=0.25)
    result = run(
        tmp_path / "run",
        model=Right,
        data=data,
        partition=Distorted(IID(4), ShiftLabels(shards=(2,))),
        algorithm=SISA(sigma=1e20, rho=200),  # w stays where it is
        rounds=1,
    )
    row = result.history[-1]
    right, wrong = math.log(1 + 3 * math.exp(-9)), 9 + math.log(1 + 3 * math.exp(-9))
    assert row["validation_accuracy"] == 0.75
    assert row["validation_worst_shard_accuracy"] == 0
    assert row["validation_loss"] == pytest.approx((3 * right + wrong) / 4, rel=1e-4)
    assert row["validation_worst_shard_loss"] == pytest.approx(wrong, rel=1e-4)
    assert row["test_accuracy"] == 1
    prepared = prepare(Config(model=Right, data=data, partition=IID(4)))
    assert {"validation_worst_shard_accuracy", "validation_worst_shard_loss"} <= set(prepared.metrics) <= set(row)


@pytest.mark.parametrize("validation", [None, one_hot(8)])
def test_without_held_out_rows_there_is_no_worst_shard(tmp_path, validation):
    data = Data(train=one_hot(80), validation=validation)
    result = run(tmp_path / "run", model=Right, data=data, partition=IID(4), rounds=1)
    names = prepare(Config(model=Right, data=data, partition=IID(4))).metrics
    assert not [name for name in (*names, *result.history[-1]) if "validation_worst" in name]


def test_the_worst_shard_is_one_with_rows():
    empty = {"rows": 0.0, "loss": 0.0}
    some = {"rows": 2.0, "loss": 4.0, "accuracy": 1.0, "my_loss": 2.0}
    more = {"rows": 10.0, "loss": 10.0, "accuracy": 6.0, "my_loss": 30.0}
    assert worst([empty, some, more]) == {"loss": 2.0, "accuracy": 0.5, "my_loss": 3.0}
    broken = some | {"loss": math.nan}
    assert all(math.isnan(worst(order)["loss"]) for order in ([more, broken], [broken, more]))
    assert worst([empty]) == worst([]) == {}


# What is wrong


@pytest.mark.parametrize(
    ("partition", "sentence"),
    [
        (
            Distorted(IID(4), Rotate(36)),
            r"partition.distortion is Rotate, but the model's inputs have shape \(64,\) .* use images, a data.transf",
        ),
        (Distorted(IID(4), Recolour(shards=(3,))), r"partition.distortion is Recolour, but .* use images, a data"),
        (
            Distorted(IID(4), ShiftLabels(shards=(4,))),
            r"partition.distortion.shards has 4, but the shards are 0 to 3: use only these.",
        ),
    ],
)
def test_what_cannot_be_distorted_is_refused_before_anything_starts(tmp_path, partition, sentence):
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        run(tmp_path / "run", workers=2, partition=partition)
    assert not (tmp_path / "run").exists()


def test_a_resume_with_another_distortion_is_refused(tmp_path):
    run(tmp_path / "run", rounds=1, partition=Distorted(IID(4), ShiftLabels(0.5)))
    with pytest.raises(ConfigError, match=r"started with partition.distort.share = 0.5, not 0.25"):
        run(tmp_path / "run", rounds=2, partition=Distorted(IID(4), ShiftLabels(0.25)), resume=True)
