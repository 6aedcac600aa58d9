"""An evaluation is the mean over all rows, and the worst shard is the worst, however rows lie in blocks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from runs import small_job

from pisa_ray import Data
from pisa_ray.engine.evaluation import means, worst
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.engine.worker import Worker


@pytest.fixture(scope="module")
def job():
    return small_job(data=Data(train="digits", test="digits:test", validation=0.1))


def measured_by_hand(worker, source, rows):
    """Mean loss and accuracy over some rows, in one go."""
    x, y = source.read(np.asarray(rows)).batch(np.arange(len(rows)))
    worker.model.module.eval()
    with torch.no_grad():
        output = worker.model.module(worker.job.preprocess(x, training=False))
    loss = torch.nn.functional.cross_entropy(output.double(), y)
    return {"loss": float(loss), "accuracy": float((output.argmax(1) == y).double().mean())}


@pytest.mark.parametrize("size", [1000, 360, 359, 100, 7, 1])
def test_a_mean_is_over_all_rows_whatever_the_size_of_blocks(job, size):
    worker = Worker(replace(job, evaluation_rows=size), process_is_ours=False)
    blocks = worker.job.blocks("test")
    assert len(blocks) == math.ceil(job.test.rows / size)
    sums = worker.evaluate(worker.model.published(), "test", blocks)
    expected = measured_by_hand(worker, job.test, np.arange(job.test.rows))
    assert means(sums.values()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("size", [1000, 13])
def test_each_shard_is_measured_on_its_own_rows(job, held_out, size):
    worker = Worker(replace(job, evaluation_rows=size), process_is_ours=False)
    worker.host(job.present)
    sums = worker.evaluate_shards(worker.model.published(), job.present, held_out=held_out)
    shards = job.held_out if held_out else job.shards
    by_hand = {i: measured_by_hand(worker, job.train, rows) for i, rows in enumerate(shards) if len(rows)}
    assert {i: means([sums[i]]) for i in by_hand} == {i: pytest.approx(m, rel=1e-5) for i, m in by_hand.items()}
    assert worst(sums.values()) == pytest.approx(
        {
            "loss": max(m["loss"] for m in by_hand.values()),
            "accuracy": min(m["accuracy"] for m in by_hand.values()),
        },
        rel=1e-5,
    )


def test_a_transform_is_told_that_it_does_not_train():
    told = []

    def noted(x, training):
        told.append(training)
        return x.float()

    data = Data(train="digits", test="digits:test", validation=0.1, transform=noted)
    job = small_job(data=data)
    worker = Worker(job, process_is_ours=False)
    worker.host(job.present)
    w = worker.model.published()
    told.clear()
    worker.evaluate(w, "test", job.blocks("test"))
    worker.evaluate_shards(w, job.present, held_out=True)
    worker.evaluate_shards(w, job.present, held_out=False)
    assert told
    assert not any(told)
    told.clear()
    worker.step(RoundSpec(1, 10.0, False), w)
    assert told == [True] * len(job.shards)


def test_without_rows_there_is_no_mean_and_no_worst():
    assert means([]) == {}
    assert means([{"rows": 0.0, "loss": 0.0}]) == {}
    assert worst([{"rows": 0.0, "loss": 0.0}, {"rows": 2.0, "loss": 3.0, "hit": 1.0}]) == {"loss": 1.5, "hit": 0.5}
    assert math.isnan(worst([{"rows": 1.0, "loss": 1.0}, {"rows": 1.0, "loss": math.nan}])["loss"])
