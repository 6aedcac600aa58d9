"""Nothing set on a loss that is easy at first: weights must not run away where the loss hardly has any curvature."""

from __future__ import annotations

import math

import pytest
import torch
from runs import events, run
from torch.nn import functional
from torch.utils.data import TensorDataset

from pisa_ray import IID, SISAD, Data
from pisa_ray.algorithm import Slope, Start, number, policy
from pisa_ray.models import mlp


def started(rule, start: Start):
    return rule.with_numbers(policy(rule).numbers(start))


def test_labels_of_a_linear_rule_are_learned_with_nothing_set(tmp_path):
    """Eight labels, multi-label BCE: by the curvature alone sigma was 1.9, and the loss 0.17 in the end."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(4800, 20, generator=g)
    y = ((x @ torch.randn(20, 8, generator=g) + 0.1 * torch.randn(4800, 8, generator=g)) > 0).float()
    result = run(
        tmp_path / "run",
        model=lambda: mlp((20,), 8, (64,)),
        data=Data(train=TensorDataset(x[:2400], y[:2400]), test=TensorDataset(x[2400:], y[2400:])),
        partition=IID(8),
        loss=functional.binary_cross_entropy_with_logits,
        algorithm=SISAD(),
        sigma_schedule=None,
        rounds=60,
        batch_size=32,
        seed=3,
        evaluate_every=20,
    )
    assert result.metrics["test_loss"] < 0.067  # the best of eight settings of Adam
    (start,) = events(result.path, "started")
    assert start["sigma"] >= 7.75
    assert not events(result.path, "sigma_raised")


@pytest.mark.parametrize("reports", [1, 40, 120, 1000])
def test_steps_by_chance_go_one_unit_at_most(reports: int) -> None:
    easy, hard = (started(SISAD(), Start(h, 0.1, reports=reports)) for h in (1e-3, 1e5))
    assert number(easy.sigma) == pytest.approx(math.sqrt(reports), rel=0.01)  # three digits are kept
    assert number(hard.sigma) == pytest.approx(3e5 / 78, rel=0.01)


@pytest.mark.parametrize(("signal", "ratio"), [(0.0, 19), (0.5, 14), (1.0, 9)])
def test_duals_average_longer_where_gradients_are_noise(signal: float, ratio: float) -> None:
    """And 2 sigma + 4 rho is three times the curvature, however that is shared out."""
    found = started(SISAD(), Start(500.0, 0.1, signal=signal))
    sigma, rho = number(found.sigma), number(found.rho)
    assert rho == pytest.approx(ratio * sigma, rel=0.01)
    assert 2 * sigma + 4 * rho == pytest.approx(1500, rel=0.01)


def slope_of(g: torch.Tensor, alpha: torch.Tensor) -> Slope:
    rows = torch.cat([g, g.abs(), g**2, torch.ones(len(g), 1)], 1)
    return Slope.of((alpha[:, None] * rows).sum(0))


@pytest.mark.parametrize("m", [2, 8, 100])
@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0, 2.0])
def test_signal_is_the_share_of_the_mean_gradient_that_is_no_chance(m: int, noise: float) -> None:
    r = torch.Generator().manual_seed(m)
    truth, alpha = torch.randn(20000, generator=r), torch.rand(m, generator=r)
    g = truth + noise * torch.randn(m, 20000, generator=r)
    alone = float((alpha @ alpha) / alpha.sum() ** 2)
    expected = 1 / (1 + noise**2 * alone)
    assert slope_of(g, alpha).signal([slice(0, 20000)], alone) == pytest.approx(expected, abs=0.02)


def test_shards_that_pull_apart_and_a_single_one_have_no_signal() -> None:
    g = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    assert slope_of(g, torch.ones(2) / 2).signal([slice(0, 2)], 0.5) == 0
    assert slope_of(g[:1], torch.ones(1)).signal([slice(0, 2)], 1.0) == 0
    assert slope_of(torch.zeros(2, 2), torch.ones(2) / 2).signal([slice(0, 2)], 0.5) == 0


def test_signal_is_that_of_some_entries() -> None:
    g = torch.tensor([[1.0, 3.0], [1.0, -3.0]])
    slope = slope_of(g, torch.ones(2) / 2)
    assert slope.signal([slice(0, 1)], 0.5) == pytest.approx(1.0)
    assert slope.signal([slice(1, 2)], 0.5) == 0
