"""What is published beside w, and the hash that tells one model from another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from runs import METHODS, Rich, uneven
from torch import nn

from pisa_ray import Data
from pisa_ray.engine.consensus import Consensus
from pisa_ray.engine.flat_model import weights_sha256
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.engine.worker import Worker
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


@pytest.mark.parametrize("method", ["sisa", "adam"])
def test_batchnorms_statistics_are_the_shards_mean_by_their_weights(method):
    job = prepare(
        Config(model=Rich, data=Data(train="digits"), partition=uneven(), algorithm=METHODS[method], batch_size=16)
    ).job
    worker = Worker(job, process_is_ours=False)
    worker.host(job.present)
    consensus = Consensus(job, worker.model.layout, worker.model.published())
    p, b = worker.model.layout.size, len(worker.model.buffers)
    w = consensus.publish().copy()
    payload, _ = worker.step(RoundSpec(1, job.method.sigma, False), w)
    assert consensus.add(1, 0, payload)
    published, _ = consensus.update(RoundSpec(1, job.method.sigma, False))
    left = []
    for i in job.present:
        batch = worker.draw(i, 0, 1, torch.from_numpy(w[p : p + b].copy()))
        worker.model.load(w)
        batch.gradient(worker.model.w)
        left.append(batch.left.numpy() * job.alpha[i])
    assert not np.allclose(published[p : p + b], w[p : p + b])
    np.testing.assert_allclose(published[p : p + b], np.sum(left, axis=0), rtol=1e-5)


def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model.register_buffer("steps", torch.tensor(3))
    model.register_buffer("scratch", torch.ones(2), persistent=False)
    model[2].bias.requires_grad_(requires_grad=False)
    return model


@pytest.mark.parametrize("name", [*dict(build().named_parameters()), "1.running_mean", "1.running_var"])
def test_the_hash_sees_every_parameter_and_every_floating_buffer(name):
    model = build()
    before = weights_sha256(model)
    assert before == weights_sha256(build())
    tensor = dict([*model.named_parameters(), *model.named_buffers()])[name]
    with torch.no_grad():
        tensor.view(-1)[-1] += 1
    assert weights_sha256(model) != before


@pytest.mark.parametrize("name", ["steps", "scratch", "1.num_batches_tracked"])
def test_the_hash_does_not_see_counts_and_what_no_file_holds(name):
    model = build()
    before = weights_sha256(model)
    dict(model.named_buffers())[name].add_(1)
    assert weights_sha256(model) == before
