"""Who does not report in a round keeps its last say, with the methods that have a memory of all; else it has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from runs import METHODS, small_job

from pisa_ray import FedAvg
from pisa_ray.engine.consensus import Consensus
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.engine.worker import Worker


def played(job, rounds):
    """The worker with all shards after some rounds, the last w, and that before."""
    worker = Worker(job, process_is_ours=False)
    worker.host(job.present)
    consensus = Consensus(job, worker.model.layout, worker.model.published())
    before = after = consensus.publish().copy()
    for round_ in range(1, rounds + 1):
        before = after
        messages, _ = worker.step(RoundSpec(round_, job.method.sigma * round_, False), before)
        assert consensus.add(round_, 0, messages)
        after = consensus.update(RoundSpec(round_, job.method.sigma * round_, False))[0].copy()
    return worker, torch.from_numpy(after), torch.from_numpy(before)


@pytest.mark.parametrize("participation", [0.5, [[0, 2], [1]]])
@pytest.mark.parametrize("method", ["sisa", "sisa_d", "nsisa"])
def test_the_last_messages_of_the_absent_stay_in_the_sum(method, participation):
    job = small_job(algorithm=METHODS[method], participation=participation)
    worker, w, _ = played(job, 3)
    reporters = set(job.reporters(3))
    assert reporters < set(job.present)
    versions = {i: shard.state.version for i, shard in worker.shards.items()}
    assert {i for i, version in versions.items() if version == 3} == reporters
    rows = job.rows(worker.model.layout, len(worker.model.buffers))
    total = rows.split(torch.stack([shard.state.said for shard in worker.shards.values()]).double().sum(0))
    penalties = job.method.penalties(worker.model.layout).spread(total.M)
    expected = total.N / (penalties + job.method.lam * total.weight)
    assert float(total.weight) == pytest.approx(1.0)
    np.testing.assert_allclose(w[: len(expected)], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("only", [0, 3])
def test_a_mean_without_memory_is_over_the_reporters(only):
    job = small_job(algorithm=FedAvg(lr=0.1, steps=2), participation=[[only]])
    worker, w, before = played(job, 2)
    assert {i: shard.state.reports for i, shard in worker.shards.items()} == {i: 1 + (i == only) for i in job.present}
    alone = Worker(job, process_is_ours=False)
    alone.host([only])
    for round_, published in ((1, alone.model.published()), (2, before.numpy())):
        messages, _ = alone.step(RoundSpec(round_, job.method.sigma * round_, False), published)
    ((_, row),) = messages.messages
    message = job.rows(alone.model.layout, 0).split(torch.from_numpy(row))
    np.testing.assert_allclose(w, before + message.N / message.weight, rtol=1e-5, atol=1e-7)
