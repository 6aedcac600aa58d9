"""Newton-Schulz, and NSISA's steps on matrices and vectors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import known

from pisa_ray.algorithm import NSISA, SISA, Layout, RowLayout, Task
from pisa_ray.algorithm.newton_schulz import orthogonalise


def test_newton_schulz_keeps_orthogonal_input_up_to_its_band():
    torch.manual_seed(1)
    for rows, columns in [(6, 6), (9, 4), (4, 9)]:
        q, _ = torch.linalg.qr(torch.randn(max(rows, columns), min(rows, columns), dtype=torch.float64))
        q = q if rows >= columns else q.mT
        o = orthogonalise(q)
        singular = torch.linalg.svdvals(o)
        assert singular.min() > 0.67
        assert singular.max() < 1.14
        torch.testing.assert_close(o / singular[0], q, rtol=1e-9, atol=1e-9)  # same singular vectors


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_newton_schulz_batch_and_transpose(rows, columns, seed):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(3, rows, columns, generator=random, dtype=torch.float64)
    batch = orthogonalise(x)
    for k in range(3):
        torch.testing.assert_close(batch[k], orthogonalise(x[k]))
    torch.testing.assert_close(orthogonalise(x.mT), batch.mT)


@pytest.mark.parametrize("nesterov", [True, False])
def test_nsisa_steps_each_parameter_by_itself(nesterov):
    """A mixed layout with batched Newton-Schulz, against each parameter alone; a 4-D slot as its matrix."""
    torch.manual_seed(4)
    shapes = [(6, 4), (4,), (6, 4), (3, 2, 2, 2), (8, 3), (3, 8)]
    whole = Layout.of((str(k), s, len(s) > 1) for k, s in enumerate(shapes))
    w, gradients = torch.randn(whole.size).double(), torch.randn(3, whole.size).double()
    method = NSISA(rest=None, sigma=3.0, rho=2.0, nesterov=nesterov)

    def numerators(layout, part):
        rows = RowLayout(layout.size)
        message = rows.split(torch.empty(rows.width).double())
        shard = method.initial_state(w[part], layout)
        for g in gradients:
            method.step(shard, Task(w[part], known(g[part].clone()), 3.0, layout), message)
        return message.N

    together = numerators(whole, slice(0, whole.size))
    for slot in whole.slots:
        shape = slot.matrix_shape if slot.matrix else slot.shape
        alone = numerators(Layout.of([("x", shape, slot.matrix)]), slot.part)
        torch.testing.assert_close(together[slot.part], alone, rtol=1e-12, atol=1e-12)
    assert len({whole.slots[0].matrix_shape, whole.slots[3].matrix_shape}) == 2
    assert whole.slots[3].matrix_shape == (3, 8)


def test_nsisa_perturbs_exact_zeros_of_matrices_only_and_less_each_report():
    method = NSISA(rest=None, sigma=4.0, rho=2.0, perturbation=1e-3, eps=1e-2)
    layout = Layout.of([("m", (2, 2), True), ("v", (3,), False)])
    w = torch.zeros(7, dtype=torch.float64)
    rows = RowLayout(7)
    message = rows.split(torch.empty(rows.width, dtype=torch.float64))
    for reports in (1, 2, 3):
        shard = method.initial_state(w, layout)
        shard.reports = reports - 1
        method.step(shard, Task(w, known(torch.zeros_like(w)), 4.0, layout), message)
        torch.testing.assert_close(shard.dual[:4], torch.full_like(w[:4], -4.0 * 1e-3**reports / (4.0 + 2.0 * 1e-2)))
        assert not shard.dual[4:].any()
        assert shard.reports == reports


def test_nsisa_treats_vectors_as_sisa():
    torch.manual_seed(3)
    w, g = torch.randn(20), torch.randn(20)
    layout = Layout.of([("b", (20,), False)])
    rows = RowLayout(20)
    numerators = []
    for method in (NSISA(rest=None, sigma=3.0, rho=2.0), SISA(sigma=3.0, rho=2.0)):
        message = rows.split(torch.empty(rows.width))
        method.step(method.initial_state(w, layout), Task(w, known(g.clone()), 3.0, layout), message)
        numerators.append(message.N.clone())
    assert torch.equal(*numerators)
