"""The baselines against their papers: two shards by hand, and what each reduces to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratics import ALPHA, P, Run, close, problem, run, two_shards, value

from pisa_ray.algorithm import (
    MIFA,
    MOON,
    SISAD,
    FedAdam,
    FedAvg,
    FedNova,
    FedProx,
    FedYogi,
    Scaffold,
    SyncOptimizer,
    Task,
)

BY_HAND = {
    # 0.75 * 0.19 - 0.25 * 0.38 = 0.0475, and from there 0.81 w + 0.0475
    "fedavg": (FedAvg(lr=0.1, steps=2), [0.0475, 0.81 * 0.0475 + 0.0475]),
    # y1 = 0.1 c; y2 = y1 - 0.1 (y1 - c + 2 y1) = 0.7 y1 + 0.1 c = 0.17 c: 0.75 * 0.17 - 0.25 * 0.34 = 0.0425
    "fedprox": (FedProx(lr=0.1, steps=2, mu=2.0), [0.0425]),
    # with momentum 0.5: v1 = -c, y1 = 0.1 c; v2 = -0.5 c + 0.1 c - c = -1.4 c, y2 = 0.24 c: 0.18 - 0.12 = 0.06
    "momentum": (FedAvg(lr=0.1, steps=2, momentum=0.5), [0.06]),
    # first round as FedAvg; c_i = -Delta_i / 0.2 = -0.95 and 1.9, c = -0.7125 + 0.475 = -0.2375.
    # second, from w = 0.0475: g + c - c_i = y - 1 + 0.7125 = y - 0.2875 and y + 2 - 2.1375 = y - 0.1375;
    # y2 - w = 0.19 (c' - w) = 0.0456 and 0.0171: w + 0.75 * 0.0456 + 0.25 * 0.0171 = 0.085975
    "scaffold": (Scaffold(lr=0.1, steps=2), [0.0475, 0.085975]),
    # m = 0.1 * 0.0475, v = 0.99e-6 + 0.01 * 0.0475^2
    "fedadam": (FedAdam(lr=0.1, steps=2), [0.01 * 0.00475 / (math.sqrt(0.99e-6 + 0.01 * 0.0475**2) + 1e-3)]),
    # v = 1e-6 + 0.01 * 0.0475^2, as Delta^2 > v
    "fedyogi": (FedYogi(lr=0.1, steps=2), [0.01 * 0.00475 / (math.sqrt(1e-6 + 0.01 * 0.0475**2) + 1e-3)]),
    # g = 0.75 * -1 + 0.25 * 2 = -0.25
    "sync": (SyncOptimizer(lr=0.1, optimizer="sgd"), [0.025]),
    # Adam's first step has length lr
    "adam": (SyncOptimizer(lr=0.1), [0.1]),
}


@pytest.mark.parametrize(("method", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_two_shards_by_hand(method, expected):
    found = two_shards(method)
    assert [value(found.round()) for _ in expected] == pytest.approx(expected, rel=1e-5)


def test_fednova_by_hand():
    # K = 1 and 3: Delta = 0.1 and -2 (1 - 0.729) = -0.542; per step 0.1 and -0.18066667;
    # mean 0.075 - 0.04516667 = 0.02983333, times the mean number of steps 0.75 + 0.75 = 1.5
    assert value(two_shards(FedNova(lr=0.1), (1, 3)).round()) == pytest.approx(0.04475, rel=1e-5)
    # FedAvg follows the shard with more steps instead: 0.075 - 0.1355
    assert value(two_shards(FedAvg(lr=0.1), (1, 3)).round()) == pytest.approx(-0.0605, rel=1e-5)


def test_fednova_weighs_momentum_as_its_paper():
    for steps in (1, 2, 5, 17):
        by_formula = (steps - 0.9 * (1 - 0.9**steps) / (1 - 0.9)) / (1 - 0.9)
        assert FedNova(momentum=0.9)._weight(steps) == pytest.approx(by_formula)
        assert FedNova()._weight(steps) == steps


def test_moon_by_hand():
    """The first report is FedAvg's; later the term pulls z towards z_w and away from z_previous."""
    found, plain = run(MOON(lr=0.1, steps=3, mu=2.0, temperature=0.5)), run(FedAvg(lr=0.1, steps=3))
    assert torch.equal(found.round(), plain.round())
    w, shard = found.w, found.shards[0]
    previous = found.states[0].previous.clone()
    start = shard.drawn
    y = w.clone()
    for k in range(3):
        leaf = y.clone().requires_grad_()
        toward, away = (torch.cosine_similarity(leaf, z, dim=0) / 0.5 for z in (w, previous))
        contrast = -2.0 * (toward - torch.log(toward.exp() + away.exp()))
        (extra,) = torch.autograd.grad(contrast, leaf)
        y = y - 0.1 * (shard.A.T @ (shard.A @ y - shard.b[(start + k) % 4]) + extra)
    found.round()
    close(found.states[0].previous, y)
    assert not torch.equal(found.w, plain.round())


# Reductions


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fedavg_with_one_step_is_synchronous_sgd(momentum):
    averaged = run(FedAvg(lr=0.05, steps=1, momentum=momentum), growth=1.1)
    close(averaged.rounds(20), run(SyncOptimizer(lr=0.05, optimizer="sgd"), growth=1.1).rounds(20))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 5), st.sampled_from([0.0, 0.9]), st.sampled_from([1.0, 1.2]))
def test_what_equals_fedavg(seed, steps, momentum, growth):
    def trajectory(kind, **more):
        return run(kind(lr=0.05, steps=steps, momentum=momentum, **more), seed=seed, growth=growth).rounds(6)

    expected = trajectory(FedAvg)
    assert torch.equal(trajectory(FedProx, mu=0.0), expected)
    assert torch.equal(trajectory(MOON, mu=0.0), expected)
    close(trajectory(FedNova), expected)
    close(trajectory(MIFA), expected)


def test_fednova_differs_where_steps_do():
    steps = [1, 5, 2]
    assert not torch.allclose(run(FedNova(lr=0.05), steps=steps).round(), run(FedAvg(lr=0.05), steps=steps).round())


def test_fedadam_without_memory_follows_the_sign():
    found = run(FedAdam(lr=0.05, server_lr=0.1, beta1=0.0, beta2=0.0, tau=1e-12))
    before, plain = found.w, run(FedAvg(lr=0.05))
    close(found.round(), before + 0.1 * torch.sign(plain.round() - before))


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_scaffold_s_variates_stay_in_balance_whoever_reports(data):
    found = run(Scaffold(lr=0.05, steps=3, momentum=data.draw(st.sampled_from([0.0, 0.9]))))
    for _ in range(6):
        found.round(data.draw(st.lists(st.integers(0, 2), min_size=1, unique=True).map(sorted)))
        close(found.memory, sum(a * s.variate for a, s in zip(ALPHA, found.states, strict=True)))


def test_scaffold_s_variates_are_mean_local_gradients():
    found = run(Scaffold(lr=0.05, steps=4))
    found.round()  # from c = c_i = 0, the steps are FedAvg's
    y, shard = torch.linspace(-1, 1, P), problem()[0]
    gradients = []
    for b in shard.b:
        gradients.append(shard.A.T @ (shard.A @ y - b))
        y = y - 0.05 * gradients[-1]
    close(found.states[0].variate, sum(gradients) / 4)


def test_scaffold_undoes_client_drift():
    """Full gradients, many local steps: SCAFFOLD ends at the optimum of the sum, FedAvg beside it (its section 2)."""

    def distance(method):
        found = Run(method, problem(batches=1), ALPHA, torch.zeros(P))
        found.rounds(3000)
        shards = found.shards
        H = sum(a * s.A.T @ s.A for a, s in zip(ALPHA, shards, strict=True))
        best = torch.linalg.solve(H, sum(a * s.A.T @ s.b[0] for a, s in zip(ALPHA, shards, strict=True)))
        return float((found.w - best).norm() / best.norm())

    assert distance(Scaffold(lr=0.1, steps=10)) < 1e-3
    assert distance(FedAvg(lr=0.1, steps=10)) > 0.05


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_mifa_uses_everybody_s_last_update(data):
    growth = data.draw(st.sampled_from([1.0, 1.25]))
    found, shards = run(MIFA(lr=0.1, steps=2), growth=growth), problem()
    w, last, rate = torch.linspace(-1, 1, P), [None] * 3, 0.1
    for round_ in range(6):
        reporters = range(3) if round_ == 0 else sorted(data.draw(st.sets(st.integers(0, 2), min_size=1)))
        rate /= growth
        for i in reporters:
            y = w.clone()
            for _ in range(2):
                y = y - rate * shards[i].draw().gradient(y)
            last[i] = (w - y) / rate
        w = w - rate * sum(a * G for a, G in zip(ALPHA, last, strict=True))
        close(found.round(reporters), w)


@pytest.mark.parametrize("method", [FedAvg(lr=0.1), SyncOptimizer(lr=0.1), FedAdam(lr=0.1)], ids=repr)
def test_a_mean_is_over_those_who_report(method):
    some, alone = run(method), run(method)
    alone.alpha = [0.5, 0.3, 1.0]  # what an absent shard weighs does not matter
    close(some.round([0, 1]), alone.round([0, 1]))
    one = run(method)
    one.alpha = [1.0, 0, 0]
    close(run(method).round([0]), one.round([0]))


def test_optimizers_are_refused_with_a_reason():
    for make, message in [
        (lambda: SyncOptimizer(optimizer="adamm"), "algorithm.optimizer is 'adamm', but it must be one of adadelta, "),
        (lambda: SyncOptimizer(optimizer="lbfgs"), "must be one of"),
        (lambda: SyncOptimizer(options={"speed": 3}), "Adam refuses its algorithm.options: .*speed"),
        (lambda: SyncOptimizer(options={"betas": (2, 0)}), "Adam refuses its algorithm.options: "),
        (lambda: SyncOptimizer(options={"lr": 1.0}), "algorithm.options has lr"),
        (lambda: SyncOptimizer(lr=0.0), "SyncOptimizer.lr is 0.0, but it must be a number of at least 1e-30 and at"),
        (lambda: FedAvg(momentum=0.5, options={"momentum": 0.5}), "momentum is given twice"),
        (lambda: FedAvg(steps=0), "FedAvg.steps is 0, but it must be a whole number of at least 1"),
        (lambda: FedAvg(steps=2.5), "FedAvg.steps is 2.5, but it must be a whole number of at least 1"),
        (lambda: SyncOptimizer(optimizer=torch.optim.LBFGS), "not LBFGS or SparseAdam"),
        (lambda: SyncOptimizer(optimizer=torch.optim.SGD([torch.zeros(1)], lr=1)), "or a class of torch"),
        (lambda: FedAvg(epochs=0.0), "epochs is 0.0"),
        (lambda: FedAvg(momentum=1.0), "momentum is 1.0"),
        (lambda: FedNova(optimizer="adam"), "FedNova takes local steps of SGD.*leave out optimizer"),
        (lambda: Scaffold(options={"nesterov": True, "momentum": 0.9}), "leave out momentum and nesterov"),
        (lambda: FedProx(mu=-1.0), "mu is -1.0"),
        (lambda: MOON(temperature=0.0), "temperature is 0.0"),
        (lambda: FedAdam(tau=0.0), "tau is 0.0"),
        (lambda: FedYogi(beta2=1.0), "beta2 is 1.0"),
        (lambda: Scaffold(server_lr=0.0), "server_lr is 0.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_local_epochs_are_whole_passes():
    method = FedAvg(epochs=2)
    assert [method.gradients(rows, min(rows, 64)) for rows in (1, 64, 65, 640)] == [2, 2, 3, 20]
    assert FedAvg(epochs=0.1).gradients(64, 64) == 1


def test_forgetting_duals_leaves_no_memory():
    """With the duals reset, every round is a first one but for the second moment."""
    found = run(SISAD(sigma=60, rho=540, reset_duals=True))
    state = found.states[0]
    g = torch.ones(P)
    for _ in range(3):
        row = torch.empty(found.rows.width)
        found.method.step(state, Task(found.w, lambda: _Fixed(g), 60.0, found.layout), found.rows.split(row))
        close(state.dual, -0.1 * g)


@dataclass
class _Fixed:
    g: torch.Tensor

    def gradient(self, point, term=None):
        return self.g.clone()
