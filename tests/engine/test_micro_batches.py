"""How a mini-batch is cut for memory changes its gradient by rounding only; clipping is of the whole gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from runs import small_job

from pisa_ray.engine.gradient import gradient


@pytest.fixture(scope="module")
def job():
    return small_job(batch_size=16)


def of(job, **changes):
    """The loss and the gradient at the initial model on 16 rows."""
    job = replace(job, **changes)
    model = job.build_model()
    x, y = job.train.read(job.shards[-1][:16]).batch(np.arange(16))
    model.module.train()
    loss = gradient(model, job, job.preprocess(x, training=True), y)
    return loss, model.gradient.clone()


@pytest.mark.parametrize("micro", [1, 3, 5, 8, 15, 16, 17])
def test_the_size_of_micro_batches_changes_rounding_only(job, micro):
    (loss, g), (cut_loss, cut) = of(job), of(job, micro_batch_size=micro)
    assert cut_loss == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(cut, g, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("micro", [None, 5])
def test_a_gradient_that_is_too_long_is_scaled_and_another_left_alone(job, micro):
    _, g = of(job, micro_batch_size=micro)
    norm = float(g.norm())
    _, clipped = of(job, micro_batch_size=micro, clip_norm=norm / 4)
    torch.testing.assert_close(clipped, g / 4)
    assert torch.equal(of(job, micro_batch_size=micro, clip_norm=norm * 1.01)[1], g)
