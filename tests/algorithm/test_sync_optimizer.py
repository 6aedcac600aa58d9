"""SyncOptimizer against torch's own optimizers, with remembered gradients, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratics import ALPHA, P, close, problem, run, two_shards, value

from pisa_ray.algorithm import Layout, RowLayout, SyncOptimizer, Update
from pisa_ray.algorithm.optimizers import Optimizer, known_optimizers, state_entries


def test_remembered_gradients_by_hand():
    # both report: 0.75 * -1 + 0.25 * 2 = -0.25. Then the second alone, 0.025 + 2: -0.75 + 0.50625 = -0.24375; then
    # the first alone, 0.049375 - 1: 0.75 * -0.950625 + 0.50625 = -0.20671875
    found = two_shards(SyncOptimizer(lr=0.1, optimizer="sgd", remember=True))
    ways = [value(found.round(reporters)) for reporters in ([0, 1], [1], [0])]
    assert ways == pytest.approx([0.025, 0.049375, 0.070046875], rel=1e-5)
    forgetful = two_shards(SyncOptimizer(lr=0.1, optimizer="sgd"))
    assert [value(forgetful.round(r)) for r in ([0, 1], [1])] == pytest.approx([0.025, -0.1775], rel=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_adam_over_remembered_gradients_against_a_loop(data):
    found, shards = run(SyncOptimizer(lr=0.05, remember=True)), problem()
    parameter, last = torch.nn.Parameter(torch.linspace(-1, 1, P)), [None] * 3
    plain = torch.optim.Adam([parameter], lr=0.05)
    for round_ in range(6):
        reporters = range(3) if round_ == 0 else sorted(data.draw(st.sets(st.integers(0, 2), min_size=1)))
        for i in reporters:
            last[i] = shards[i].draw().gradient(parameter.detach().clone())
        parameter.grad = sum(a * g for a, g in zip(ALPHA, last, strict=True))
        plain.step()
        close(found.round(reporters), parameter.detach())


@pytest.mark.parametrize("name", sorted(known_optimizers()))
def test_every_optimizer_of_torch_goes_on_where_it_was(name):
    """Its state survives the way through a flat vector, bit for bit."""
    options = {"momentum": 0.9} if name == "sgd" else {}
    matrices = Layout.of([("a", (2, 3), True)])  # Muon takes matrices only
    method = SyncOptimizer(lr=0.01, optimizer=name, options=options)
    random = torch.Generator().manual_seed(1)
    gradients = [torch.randn(P, generator=random) for _ in range(8)]
    w, memory, rows = torch.linspace(-1, 1, P), method.initial_memory(matrices), RowLayout(P)
    parameter = torch.nn.Parameter(w.clone().view(2, 3))
    plain = known_optimizers()[name]([parameter], lr=0.01, **options)
    for g in gradients:
        row = torch.cat([g, torch.ones(2)])
        out = torch.empty(P)
        method.update(Update(rows.split(row), w, method.sigma, matrices, out), memory)
        w = out
        parameter.grad = g.clone().view(2, 3)
        plain.step()
        assert torch.equal(w, parameter.detach().flatten())


def test_a_sigma_schedule_is_a_learning_rate_schedule():
    found, parameter = run(SyncOptimizer(lr=0.1), growth=1.25), torch.nn.Parameter(torch.linspace(-1, 1, P))
    plain, shards = torch.optim.Adam([parameter], lr=0.1), problem()
    for _ in range(10):
        plain.param_groups[0]["lr"] /= 1.25
        parameter.grad = sum(a * s.draw().gradient(parameter.detach()) for a, s in zip(ALPHA, shards, strict=True))
        plain.step()
        close(found.round(), parameter.detach())


def test_states_that_no_vector_can_hold_are_refused():
    class Odd(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter]["flag"] = torch.ones(3, dtype=torch.bool)

    with pytest.raises(ValueError, match=r"Odd keeps flag as torch\.bool"):
        state_entries(Optimizer.of(Odd, 0.1, {}), Layout.of([("a", (2,), False)]))
