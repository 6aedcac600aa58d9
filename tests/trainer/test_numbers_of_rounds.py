"""What a round's numbers say, and when they end a run."""

from __future__ import annotations

import pytest
import torch
from runs import run

from pisa_ray import FedAdam, NonFiniteError
from pisa_ray.trainer import checkpoint


def one(output, target):
    """A loss that is 1 wherever the model goes."""
    return torch.nn.functional.cross_entropy(output, target) * 1e-12 + 1.0


@pytest.mark.parametrize("participation", [1.0, 0.5, [[0, 3], [6]]])
def test_the_loss_of_a_round_is_the_mean_over_those_who_report(tmp_path, participation):
    result = run(tmp_path / "run", rounds=4, evaluate_every=1, participation=participation, loss=one)
    assert [row["train_loss"] for row in result.history] == pytest.approx([1.0] * 4, rel=1e-6)
    assert [row["worst_shard_loss"] for row in result.history] == pytest.approx([1.0] * 4, rel=1e-6)


def test_a_w_that_is_not_finite_ends_the_run_though_all_messages_are(tmp_path):
    server = FedAdam(lr=0.1, steps=1, server_lr=1e38, beta1=0.0, tau=1e-30)  # a step of ten times server_lr
    with pytest.raises(NonFiniteError, match=r"round 1 is not finite at .*: the consensus w is not finite"):
        run(tmp_path / "run", rounds=3, algorithm=server, checkpoint_every=1)
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is None
