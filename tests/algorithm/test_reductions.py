"""What the methods become in limit cases, and the identities that any implementation satisfies."""

from __future__ import annotations

import hashlib
from itertools import islice

import numpy as np
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
    Curvature,
    EmpiricalFisher,
    FisherDiagonal,
    GaussNewton,
    Hessian,
    HessianDiagonal,
    Identity,
    Layout,
    RMSProp,
    RowLayout,
    Task,
    consensus,
)
from pisa_ray.algorithm import layout as layout_module
from pisa_ray.algorithm.newton_schulz import orthogonalise
from pisa_ray.algorithm.preconditioners import conjugate_gradients
from pisa_ray.algorithm.rules import square_root
from pisa_ray.schedulers import Geometric

METHODS = [SISA(sigma=2, rho=200), SISAD(sigma=60, rho=540), NSISA(rest=None, sigma=80, rho=100), PISA(sigma=1, rho=3)]
GOLDEN = {
    ("SISA", "7e0d5dd4e0326c74"),
    ("SISAD", "cb5fe87b8ab14695"),
    ("NSISA", "c651679f676058bc"),
    ("PISA", "86570ab85a9ec1fa"),
}


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


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_block_size_and_alignment_do_not_change_a_bit(method, steps, monkeypatch):
    torch.manual_seed(2)
    values = torch.randn(5, 1000)

    def run(offset=0):
        def aligned(x):
            room = torch.empty(len(x) + offset)[offset:]
            return room.copy_(x)

        layout = Layout.of([("a", (30, 30), True), ("b", (100,), False)])
        rows = RowLayout(1000, method.penalties(layout).size)
        message = rows.split(aligned(torch.empty(rows.width)))
        w, gap = aligned(values[0]), aligned(values[1])
        shard = method.initial_state(w, layout)
        for g in values[2:]:
            method.step(shard, Task(w, known(aligned(g)), 2.0, layout, gap=gap, steps=steps), message)
        message.weight.fill_(1)
        return [shard.sha256(), *(x.numpy().tobytes() for x in (message.N, gap, consensus(message, 0.1, w)))]

    first = run()
    assert all(run(offset) == first for offset in (1, 3, 7))
    monkeypatch.setattr(layout_module, "BLOCK", 64)
    assert len(list(layout_module.blocks(values[0]))) == 16
    assert run() == first


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


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_bits_of_a_few_steps(method):
    """Golden bits: plain products and sums only, so no vector width, fused form or torch version may change them."""
    random = np.random.Generator(np.random.Philox(key=1))
    values = [torch.from_numpy(random.standard_normal(100_003, dtype=np.float32)) for _ in range(4)]
    layout = Layout.of([("b", (100_003,), False)])
    rows = RowLayout(100_003, method.penalties(layout).size)
    row = torch.empty(rows.width)
    message = rows.split(row)
    shard = method.initial_state(values[0], layout)
    for g in values[1:]:
        method.step(shard, Task(values[0], known(g.clone()), 1.7, layout), message)
    rows.complete(row, 0.3, row[:0])
    w = consensus(message, 0.1, torch.empty(100_003))
    digest = hashlib.sha256(row.numpy().tobytes() + w.numpy().tobytes()).hexdigest()[:16]
    assert (type(method).__name__, digest) in GOLDEN


def test_square_roots_are_made_of_correctly_rounded_operations():
    x = np.random.default_rng(0).standard_normal(100_003).astype(np.float32) ** 2
    x[:3] = 0, 1, np.inf
    with np.errstate(divide="ignore"):
        expected = np.float32(1) / (np.float32(1) / np.sqrt(x))
    assert np.array_equal(square_root(torch.from_numpy(x)).numpy(), expected)


def test_a_coordinate_without_gradient_does_not_stay_denormal():
    torch.set_flush_denormal(True)
    try:
        layout, method = Layout.of([("b", (8,), False)]), SISAD(sigma=60, rho=540)
        rows = RowLayout(8, 8)
        message = rows.split(torch.empty(rows.width))
        w = torch.zeros(8)
        shard = method.initial_state(w, layout)
        for g in [torch.ones(8), *[torch.zeros(8)] * 1200]:
            method.step(shard, Task(w, known(g.clone()), 60.0, layout), message)
        assert (shard.dual.abs() >= torch.finfo(torch.float32).tiny).all() or not shard.dual.any()
    finally:
        torch.set_flush_denormal(False)


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


def test_sisa_d_does_not_see_the_scale_of_the_loss():
    problem = random_problem(4)
    problem.lam = 0.0
    scaled = LeastSquares([10 * A for A in problem.A], [10 * b for b in problem.b], problem.alpha, 0.0, problem.w0)
    method = SISAD(sigma=60, rho=540, eps=1e-12)
    runs = zip(*(library(x, [method] * 3, [Geometric(0.9, 5)] * 3) for x in (problem, scaled)), strict=True)
    for one, other in islice(runs, 20):
        torch.testing.assert_close(one.w, other.w, rtol=1e-8, atol=1e-10)


def mlp_curvature(seed=0):
    torch.manual_seed(seed)
    x, y = torch.randn(7, 3, dtype=torch.float64), torch.randint(2, (7,))
    w = torch.randn(3 * 4 + 4 * 2, dtype=torch.float64)

    def outputs(flat):
        return torch.tanh(x @ flat[:12].view(3, 4)) @ flat[12:].view(4, 2)

    def losses(z):
        return torch.nn.functional.cross_entropy(z, y, reduction="none")

    def sample_loss(flat, j):
        return losses(outputs(flat))[j]

    return Curvature(w, outputs, lambda z: losses(z).mean(), sample_loss, 7), outputs, losses, w


def test_curvature_products_equal_dense_matrices():
    curvature, outputs, losses, w = mlp_curvature()
    H = torch.func.hessian(lambda flat: losses(outputs(flat)).mean())(w)
    J = torch.func.jacrev(outputs)(w).flatten(0, 1)
    z = outputs(w)
    H_out = torch.func.hessian(lambda flat: losses(flat.view_as(z)).mean())(z.flatten())
    G = torch.func.jacrev(lambda flat: losses(outputs(flat)))(w)
    v = torch.randn_like(w)
    torch.testing.assert_close(curvature.hessian(v), H @ v)
    torch.testing.assert_close(curvature.gauss_newton(v), J.T @ H_out @ J @ v)
    with torch.no_grad():  # as inside an optimizer's step
        torch.testing.assert_close(torch.stack(list(curvature.sample_gradients())), G)
    torch.testing.assert_close(FisherDiagonal(eta=0.01)(curvature), (G * G).mean(0).clamp(max=0.01))
    torch.testing.assert_close(EmpiricalFisher()(curvature)(v), G.T @ G @ v / 7)
    torch.testing.assert_close(HessianDiagonal()(curvature), H.diagonal().abs())
    torch.testing.assert_close(HessianDiagonal(eta=0.1)(curvature), H.diagonal().abs().clamp(max=0.1))
    torch.testing.assert_close(FisherDiagonal()(curvature), (G * G).mean(0))
    with pytest.raises(ValueError, match="needs a Curvature with a generator"):
        HessianDiagonal(probes=1)(curvature)
    curvature.generator = torch.Generator().manual_seed(0)
    first = HessianDiagonal(probes=2)(curvature)
    curvature.generator.manual_seed(0)
    assert torch.equal(first, HessianDiagonal(probes=2)(curvature))
    estimate = HessianDiagonal(probes=800)(curvature)
    assert (estimate - H.diagonal().abs()).norm() < 0.3 * H.diagonal().norm()


def test_conjugate_gradients_solve_and_never_step_uphill():
    def local_solve(Q, d, sigma, rho):
        return conjugate_gradients(Q, d, sigma, rho)

    torch.manual_seed(5)
    B = torch.randn(12, 12, dtype=torch.float64)
    d = torch.randn(12, dtype=torch.float64)
    convex, indefinite = B @ B.T, B + B.T
    eye = torch.eye(12, dtype=torch.float64)
    exact = torch.linalg.solve(2 * eye + 0.5 * convex, d)
    torch.testing.assert_close(local_solve(lambda v: convex @ v, d, 2.0, 0.5), exact, rtol=1e-11, atol=1e-12)
    with pytest.warns(UserWarning, match="after 2 products: raise sigma or lower rho"):
        conjugate_gradients(lambda v: convex @ v, d, 2.0, 0.5, most=2)
    step = local_solve(lambda v: indefinite @ v, d, 2.0, 5.0)
    assert step.dot(d) > 0
    assert step.norm() <= d.norm() / 2.0 * 1.001  # never longer than the step without curvature
    negative = local_solve(lambda v: -v, d, 2.0, 5.0)
    torch.testing.assert_close(negative, d / 2.0)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SISA(sigma=0), "sigma is 0"),
        (lambda: SISA(sigma=float("nan")), "sigma is nan"),
        (lambda: PISA(rho=-1), "rho is -1"),
        (lambda: SISAD(lam=-0.1), "SISAD.lam is -0.1"),
        (lambda: SISAD(local_steps=0), "local_steps is 0"),
        (lambda: PISA(local_steps=1.5), "local_steps is 1.5"),
        (lambda: SISAD(beta=1.0), "beta is 1.0"),
        (lambda: SISAD(eps=0.0), "eps is 0.0"),
        (lambda: NSISA(rest=None, mu=1.0), "mu is 1.0"),
        (lambda: NSISA(rest=None, steps=-1), "steps is -1"),
        (lambda: SISA(eps=-1.0), "eps is -1.0"),
        (lambda: Identity(-1.0), "q is -1.0"),
        (lambda: HessianDiagonal(probes=0), "probes is 0"),
        (lambda: Adam(1.5), "Adam.beta is 1.5"),
        (lambda: Geometric(0.0, 1), "gamma is 0.0"),
        (lambda: Geometric(0.9, 0), "k0 is 0"),
    ],
)
def test_impossible_settings_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_identity_multiple_is_a_scaled_rho():
    problem = random_problem(6)
    twice, scaled = (
        library(problem, [PISA(sigma=50, rho=r, lam=0.05, preconditioner=Identity(q))] * 3, [Geometric(1.0, 1)] * 3)
        for r, q in ((10.0, 2.0), (20.0, 1.0))
    )
    for one, other in islice(zip(twice, scaled, strict=True), 5):
        torch.testing.assert_close(one.w, other.w)
