"""Sigma schedules: what each does, what it remembers, and that runs with them have the same bits however made."""

from __future__ import annotations

import math

import pytest
import torch
from every import every
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR

from pisa_ray import (
    SISA,
    ConfigError,
    Data,
    FedAvg,
    Geometric,
    LabelSkew,
    LagrangianDescent,
    Matched,
    PisaTrainer,
    Plateau,
    ResidualBalancing,
    Shape,
)
from pisa_ray.models import mlp
from pisa_ray.schedulers import Seen, SigmaSchedule
from pisa_ray.schedulers.adaptive import Adaptive
from pisa_ray.schedulers.planned import LARGEST, SMALLEST


def sigmas(schedule, rounds, sigma=1.0):
    return [sigma := schedule.grow(sigma, round_) for round_ in range(1, rounds + 1)]


def adapted(schedule, seen, sigma=1.0):
    """Penalties of the rounds after those that were seen, and what is remembered."""
    memory, found = {}, []
    for round_, what in enumerate(seen, 1):
        sigma, memory = schedule.adapt(sigma, round_, what, memory)
        found.append(sigma)
    return found, memory


# Planned


@given(growth=st.floats(1, 1e6), rounds=st.integers(1, 500))
def test_matched_grows_by_the_factor_in_all(growth, rounds):
    found = sigmas(Matched(growth, rounds), rounds + 5)
    assert math.isclose(found[rounds - 1], growth, rel_tol=1e-9)
    assert found[-1] == found[rounds - 1]
    assert found == sorted(found)


def test_matched_is_geometric_with_one_number():
    even, steps = sigmas(Matched(0.9**-10, 100), 100), sigmas(Geometric(0.9, 10), 100)
    assert math.isclose(even[-1], steps[-1], rel_tol=1e-9)
    assert all(a >= b * 0.9 for a, b in zip(even, steps, strict=True))


def test_a_shape_is_one_over_the_rate_of_torch():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = CosineAnnealingLR(optimizer, T_max=20, eta_min=0.01)
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    found = sigmas(Shape("CosineAnnealingLR", {"T_max": 20, "eta_min": 0.01}), 20, sigma=3.0)
    assert found == pytest.approx([3.0 / rate for rate in rates], rel=1e-9)


def test_a_shape_that_ends_in_zero_stays_finite():
    found = sigmas(Shape("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 5}), 20)
    assert found[-1] == pytest.approx(1 / SMALLEST)
    assert max(sigmas(Geometric(1e-9, 1), 9)) == LARGEST


def test_a_shape_asked_from_the_middle_is_the_same():
    options = {"step_size": 3, "gamma": 0.5}
    whole = sigmas(Shape("StepLR", options, warmup=4), 20)
    resumed = Shape("StepLR", options, warmup=4)
    assert [resumed.grow(whole[9], 11), resumed.grow(whole[3], 5)] == [whole[10], whole[4]]


# By what is seen


def test_balancing_grows_while_shards_disagree_and_no_further_than_allowed():
    rule = ResidualBalancing(every=1, ratio=10, factor=2, most=8)
    found, _ = adapted(rule, [Seen(1.0, primal=1.0, move=0.05)] * 5)
    assert found == [2.0, 4.0, 8.0, 8.0, 8.0]
    assert adapted(rule, [Seen(1.0, primal=1.0, move=1.0)] * 3)[0] == [1.0] * 3
    assert adapted(rule, [Seen(1.0)] * 3)[0] == [1.0] * 3  # nothing was measured


def test_descent_grows_when_the_lagrangian_rises():
    rule = LagrangianDescent(every=1, tolerance=0.1)
    seen = [Seen(1.0, lagrangian=value) for value in (5.0, 4.0, 4.2, 4.9, 4.0)]
    found, memory = adapted(rule, seen)
    assert found == [1.0, 1.0, 1.0, 2.0, 2.0]
    assert memory == {"lagrangian": 4.0, "grown": 2.0}
    assert adapted(rule, [Seen(1.0, lagrangian=v) for v in (-5.0, -4.9, -4.0)])[0] == [1.0, 1.0, 2.0]  # below zero, too


def test_a_plateau_of_the_smoothed_loss():
    rule = Plateau(patience=3, smoothing=0.0, threshold=0.0)
    falling = [Seen(1.0 / k) for k in range(1, 6)]
    found, _ = adapted(rule, [*falling, *[Seen(0.3)] * 7])
    assert found == [1.0] * 5 + [1.0, 1.0, 2.0, 2.0, 2.0, 4.0, 4.0]
    assert adapted(rule, [Seen(0.3), *[Seen(math.nan)] * 9])[0] == [1.0] * 10  # rounds in which nobody reported


@given(st.lists(st.floats(0.01, 10), max_size=40), st.integers(1, 5), st.floats(1, 100))
def test_no_rule_shrinks_sigma_or_goes_beyond_its_bound(losses, every, most):
    seen = [Seen(x, primal=x, move=1 / x, lagrangian=x) for x in losses]
    for rule in Adaptive.known().values():
        found, _ = adapted(rule(every=every, most=most), seen)
        assert [1.0, *found] == sorted([1.0, *found])
        assert max([1.0, *found]) <= most * (1 + 1e-9)
        changed = [r for r, (a, b) in enumerate(zip([1.0, *found], found, strict=False), 1) if a != b]
        assert all(r % every == 0 for r in changed)


# In a run

#: Every kind but those that make trials, which need held-out rows; see test_online.py.
RULES = {
    kind: rule
    for kind, rule in every(
        SigmaSchedule,
        geometric=Geometric(0.9, 3),
        matched=Matched(10, 24),
        shape=Shape("CosineAnnealingLR", {"T_max": 40}, warmup=3),
        residual_balancing=ResidualBalancing(every=2, ratio=0.5, factor=1.3),
        lagrangian_descent=LagrangianDescent(every=2, tolerance=0.0, factor=1.3),
        plateau=Plateau(patience=2, threshold=0.2),
    ).items()
    if not rule.tries
}


def run(path, rule, rounds, **changes):
    settings = {
        "model": lambda: mlp((64,), 10),
        "data": Data(train="digits", test="digits:test"),
        "partition": LabelSkew(5, 2),
        "algorithm": SISA(sigma=0.3, rho=30),
        "sigma_schedule": rule,
        "rounds": rounds,
        "batch_size": 16,
        "evaluate_every": 1,
        "checkpoint_every": 5,
        "scaling_config": 0,
        "run_config": path,
        "progress": False,
        **changes,
    }
    return PisaTrainer(**settings).fit()


@pytest.mark.parametrize("name", RULES)
def test_a_run_is_the_same_resumed_and_however_often_it_is_evaluated(tmp_path, name):
    rule = RULES[name].over(24)
    whole = run(tmp_path / "whole", rule, 24)
    run(tmp_path / "parts", rule, 13)
    parts = run(tmp_path / "parts", rule, 24, resume=True)
    seldom = run(tmp_path / "seldom", rule, 24, evaluate_every=24)
    assert whole.weights_sha256 == parts.weights_sha256 == seldom.weights_sha256
    grown = [row["sigma"] for row in whole.history]
    assert [row["sigma"] for row in parts.history] == grown
    assert seldom.history[-1]["sigma"] == grown[-1]
    assert (len(set(grown)) > 1) == (name != "constant")  # each of them has done something


@pytest.mark.ray
@pytest.mark.parametrize("name", ["residual_balancing", "plateau"])
def test_a_run_is_the_same_on_workers(tmp_path, ray_session, name):
    alone, two = (run(tmp_path / str(n), RULES[name], 12, scaling_config=n) for n in (0, 2))
    assert alone.weights_sha256 == two.weights_sha256
    assert [row["sigma"] for row in alone.history] == [row["sigma"] for row in two.history]


def test_rules_that_look_at_duals_want_duals(tmp_path):
    with pytest.raises(ConfigError, match="ResidualBalancing looks at residuals of duals, but FedAvg has none"):
        run(tmp_path / "run", ResidualBalancing(), 2, algorithm=FedAvg(lr=0.1))


def test_what_is_planned_over_the_rounds_is_not_prolonged(tmp_path):
    run(tmp_path / "run", Matched(10), 4)
    with pytest.raises(ConfigError, match=r"started with sigma_schedule\.rounds = 4, not 6"):
        run(tmp_path / "run", Matched(10), 6, resume=True)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Matched(0.5), "growth is 0.5"),
        (lambda: Matched(2, 0), "rounds is 0"),
        (lambda: Shape("StepLR", {"step_size": 1}, warmup=-1), "warmup is -1"),
        (lambda: Shape("Adam"), "name is 'Adam'"),
        (lambda: Shape("StepLR", {"steps": 1}), "options do not fit StepLR"),
        (lambda: Plateau(factor=1), "factor is 1"),
        (lambda: Plateau(most=0), "most is 0"),
        (lambda: Plateau(every=0), "every is 0"),
        (lambda: Plateau(patience=0), "patience is 0"),
        (lambda: Plateau(smoothing=1), "smoothing is 1"),
    ],
)
def test_what_makes_no_sense_is_refused(make, why):
    with pytest.raises(ValueError, match=why):
        make()
