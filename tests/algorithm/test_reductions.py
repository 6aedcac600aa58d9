"""What the methods become in limit cases, and the identities that any implementation satisfies."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import LeastSquares, adam_root, known, library, random_problem, textbook

from pisa_ray.algorithm import (
    NSISA,
    PISA,
    SISA,
    SISAD,
    AdaGrad,
    Adam,
    GaussNewton,
    Hessian,
    Identity,
    Layout,
    RMSProp,
    RowLayout,
    Task,
)
from pisa_ray.schedulers import Geometric


def method_step(method, w, g, sigma, shard, shape):
    layout = Layout.of([("w", shape, True)])
    rows = RowLayout(w.numel(), method.penalties(layout).size)
    message = rows.split(torch.empty(rows.width, dtype=w.dtype))
    gap = torch.empty_like(w)
    old = shard.dual.clone()
    method.step(shard, Task(w, known(g), sigma, layout, gap), message)
    return old, gap, message


@pytest.mark.parametrize(
    "method",
    [
        PISA(sigma=3, rho=2),
        PISA(sigma=3, rho=2, preconditioner=lambda curvature: torch.arange(6.0, dtype=torch.float64)),
        SISA(sigma=3, rho=2),
        SISA(sigma=3, rho=2, second_moment=AdaGrad()),
        SISA(sigma=3, rho=2, second_moment=RMSProp(0.9)),
        SISAD(sigma=3, rho=2),
    ],
    ids=lambda method: repr(method).partition(" at 0x")[0],
)
def test_identities_a_b_c(method):
    torch.manual_seed(0)
    w = torch.randn(6, dtype=torch.float64)
    shard = method.initial_state(w, Layout.of([("w", (6,), False)]))
    for sigma in (3.0, 3.0, 4.5):
        g = torch.randn_like(w)
        old, gap, message = method_step(method, w, g.clone(), sigma, shard, (3, 2))
        new, s = shard.dual, message.M
        torch.testing.assert_close(new, old + s * gap)  # the dual line
        torch.testing.assert_close(message.N, s * (w + gap) + new)  # (c): s w_i + pi'
        torch.testing.assert_close(message.N, s * w + 2 * new - old)
        theta = -(new - old) / (old + g)
        torch.testing.assert_close(new, (1 - theta) * old - theta * g)  # (b)
        assert (theta > 0).all()
        assert (theta <= 1).all()
        rho_q = s / theta - s
        torch.testing.assert_close(new, -g - rho_q * gap)  # (a)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 5.0, 50.0]), st.sampled_from([0.9, 0.999]))
def test_textbook_form_equals_cheap_form(seed, rho, beta):
    problem = random_problem(seed)
    schedule = [Geometric(0.9, 3)] * 3
    method = SISA(sigma=30.0, rho=rho, lam=problem.lam, second_moment=Adam(beta), eps=1e-8)
    cheap = library(problem, [method] * 3, schedule)
    plain = textbook(problem, [30.0] * 3, [rho] * 3, schedule, root=adam_root(3, beta, 1e-8))
    for ours, theirs in islice(zip(cheap, plain, strict=False), 20):
        torch.testing.assert_close(ours.w, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_float32_flat_path_follows_the_float64_textbook(seed):
    problem, exact = random_problem(seed, dtype=torch.float32), random_problem(seed)
    schedule = [Geometric(0.95, 10)] * 3
    method = SISA(sigma=30.0, rho=5.0, lam=0.05, second_moment=Adam(0.999))
    flat = library(problem, [method] * 3, schedule)
    plain = textbook(exact, [30.0] * 3, [5.0] * 3, schedule, root=adam_root(3, 0.999, 1e-8))
    for ours, theirs in islice(zip(flat, plain, strict=False), 50):
        torch.testing.assert_close(ours.w.double(), theirs, rtol=1e-5, atol=1e-5)


def test_identity_d_and_the_momentum_form_of_one_shard():
    """One shard, constant sigma, lambda 0: w <- w + v' + (v' - v), v' = (1 - theta) v - g / (sigma + rho)."""
    problem = random_problem(1, m=1)
    problem.lam = 0.0
    sigma, rho = 40.0, 20.0
    run = library(problem, [PISA(sigma=sigma, rho=rho)], [Geometric(1.0, 1)])
    w, v = problem.w0, torch.zeros_like(problem.w0)
    for iterate in islice(run, 60):
        torch.testing.assert_close(iterate.w, w, rtol=1e-10, atol=1e-12)
        new = (1 - sigma / (sigma + rho)) * v - problem.gradient(0, w) / (sigma + rho)
        w, v = w + new + (new - v), new


def test_rho_zero_is_gradient_descent_with_a_dual():
    """Rho = 0: theta = 1, so pi_i = -g_i and w_i = w - (pi_i + g_i) / sigma, whatever the preconditioner."""
    problem = random_problem(2)
    problem.lam = 0.0
    runs = [
        library(problem, [method] * 3, [Geometric(1.0, 1)] * 3)
        for method in (
            PISA(sigma=50.0, rho=0.0),
            PISA(sigma=50.0, rho=0.0, preconditioner=Hessian()),
            SISA(sigma=50.0, rho=0.0),
            SISA(sigma=50.0, rho=0.0, second_moment=AdaGrad()),
        )
    ]
    for iterates in islice(zip(*runs, strict=True), 20):
        for iterate in iterates:
            torch.testing.assert_close(iterate.w, iterates[0].w, rtol=1e-9, atol=1e-12)
            for i in range(3):
                torch.testing.assert_close(iterate.pi_i[i], -problem.gradient(i, iterate.w), rtol=1e-9, atol=1e-10)


def test_constant_sigma_reaches_the_optimum():
    problem = random_problem(3)
    for method, rounds in [
        (PISA(sigma=40, rho=10, lam=0.05), 1500),
        (SISA(sigma=40, rho=1, lam=0.05), 1500),
        (PISA(sigma=4, rho=1, lam=0.05, preconditioner=GaussNewton()), 200),
    ]:
        last = next(islice(library(problem, [method] * 3, [Geometric(1.0, 1)] * 3), rounds, None))
        torch.testing.assert_close(last.w, problem.optimum(), rtol=1e-6, atol=1e-7)


def test_momentum_is_the_mean_of_one_minus_theta():
    torch.manual_seed(6)
    w, g = torch.randn(2, 6, dtype=torch.float64)
    q = torch.arange(1.0, 7.0, dtype=torch.float64)
    layout = Layout.of([("w", (3, 2), True)])
    gap = torch.empty_like(w)

    def momentum(method):
        rows = RowLayout(6, method.penalties(layout).size)
        message = rows.split(torch.empty(rows.width, dtype=torch.float64))
        return method.step(method.initial_state(w, layout), Task(w, known(g.clone()), 3.0, layout, gap=gap), message)

    def expected(q):
        return float((2 * q / (3 + 2 * q)).mean())

    assert momentum(PISA(sigma=3, rho=2, preconditioner=lambda c: q)) == pytest.approx(expected(q))
    assert momentum(PISA(sigma=3, rho=2)) == pytest.approx(2 / 5)
    assert momentum(PISA(sigma=3, rho=2, preconditioner=lambda c: lambda v: q * v)) is None
    assert momentum(SISA(sigma=3, rho=2, second_moment=AdaGrad())) == pytest.approx(expected(g.abs() + 1e-8))
    assert momentum(SISAD(sigma=3, rho=2)) == pytest.approx(2 / 5)
    vectors = Layout.of([("w", (6,), False)])
    layout = vectors
    assert momentum(NSISA(rest=None, sigma=3, rho=2, second_moment=AdaGrad())) == pytest.approx(
        expected(g.abs() + 1e-8)
    )


def test_first_consensus_shrinks_by_lambda_only():
    w, layout = torch.randn(5), Layout.of([("w", (5,), False)])
    for method in (PISA(sigma=9, lam=0.1), SISA(sigma=9, lam=0.1), NSISA(rest=None, sigma=9, lam=0.1)):
        assert torch.equal(method.first_consensus(w, layout), w * (9 / 9.1))
        assert torch.equal(type(method)(sigma=9).first_consensus(w, layout), w)
    assert torch.equal(SISAD(lam=0.1).first_consensus(w, layout), w)


def test_sisa_d_does_not_see_the_scale_of_the_loss():
    problem = random_problem(4)
    problem.lam = 0.0
    scaled = LeastSquares([10 * A for A in problem.A], [10 * b for b in problem.b], problem.alpha, 0.0, problem.w0)
    method = SISAD(sigma=60, rho=540, eps=1e-12)
    runs = zip(*(library(x, [method] * 3, [Geometric(0.9, 5)] * 3) for x in (problem, scaled)), strict=True)
    for one, other in islice(runs, 20):
        torch.testing.assert_close(one.w, other.w, rtol=1e-8, atol=1e-10)


def test_identity_multiple_is_a_scaled_rho():
    problem = random_problem(6)
    twice, scaled = (
        library(problem, [PISA(sigma=50, rho=r, lam=0.05, preconditioner=Identity(q))] * 3, [Geometric(1.0, 1)] * 3)
        for r, q in ((10.0, 2.0), (20.0, 1.0))
    )
    for one, other in islice(zip(twice, scaled, strict=True), 5):
        torch.testing.assert_close(one.w, other.w)
