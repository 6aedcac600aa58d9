"""ADMM with several local steps between two exchanges, and that one step is what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Drawn, Known, LeastSquares, Stream, adam_root, library, random_problem

from pisa_ray.algorithm import (
    NSISA,
    PISA,
    SISA,
    SISAD,
    AdaGrad,
    Adam,
    EmpiricalFisher,
    Hessian,
    Layout,
    Message,
    RMSProp,
    RowLayout,
    SecondMoment,
    ShardState,
    Task,
)
from pisa_ray.algorithm.methods.admm import AdmmRule
from pisa_ray.algorithm.newton_schulz import orthogonalise, shape_scale
from pisa_ray.schedulers import Geometric

#: (shard, d, how many with this one) -> the diagonal of Q; (shard, gradient) -> what takes the gradient's place.
Root = Callable[[int, torch.Tensor, int], torch.Tensor]
Direction = Callable[[int, torch.Tensor], torch.Tensor]
#: (rows A, b of the mini-batch, v) -> Q.
Matrix = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def textbook(
    problem: LeastSquares,
    steps: int,
    sigma: float,
    rho: float,
    schedule: Geometric,
    *,
    root: Root = lambda i, d, k: torch.ones_like(d),
    direction: Direction = lambda i, g: g,
    metric: Root | None = None,
    matrix: Matrix | None = None,
    reporters: Callable[[int], list[int]] = lambda iteration: [0, 1, 2],
) -> Iterator[tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]]:
    """Each local problem solved by itself, with local copies; endless (w, w_i, pi_i).

    The argmin of <g + pi, x> + (sigma/2) ||x - w||^2 + (rho/2) (x - v)' Q (x - v) is
    (sigma I + rho Q)^-1 (sigma w + rho Q v - pi - g). With a `metric`, D of (shard, g, how many), all norms are D's, v
    is where the steps before lead by the D of this one, rho grows as sigma does, and
    w = sum alpha (sigma D w_i + pi) / sum alpha sigma D.
    """
    m, alpha, w0 = len(problem.A), problem.alpha, problem.w0
    w_i, pi, taken = [w0.clone() for _ in range(m)], [0 * w0] * m, [0] * m
    penalty = [sigma * torch.ones_like(w0) for _ in range(m)]
    iteration = 0
    while True:
        iteration += 1
        w = sum(a * (s * x + y) for a, s, x, y in zip(alpha, penalty, w_i, pi, strict=True))
        w = w / (sum(a * s for a, s in zip(alpha, penalty, strict=True)) + (problem.lam if metric is None else 0))
        old, sigma = sigma, schedule.grow(sigma, iteration)
        rho = rho if metric is None else rho * sigma / old
        for i in reporters(iteration):
            v = w.clone()
            for _ in range(steps):
                g = direction(i, problem.gradient(i, v, taken[i]))
                taken[i] += 1
                if metric is not None:
                    D = metric(i, g, taken[i])
                    v = w + penalty[i] * (v - w) / (sigma * D)
                    penalty[i] = sigma * D
                    v = (sigma * D * w + rho * D * v - pi[i] - g) / (sigma * D + rho * D)
                    continue
                penalty[i] = sigma * torch.ones_like(w)
                if matrix is not None:
                    Q = matrix(*problem.batch(i, taken[i] - 1), v)
                else:
                    Q = torch.diag(root(i, pi[i] + sigma * (v - w) + g, taken[i]).flatten())
                right = (sigma * w - pi[i] - g).flatten() + rho * (Q @ v.flatten())
                v = torch.linalg.solve(sigma * torch.eye(len(right), dtype=w.dtype) + rho * Q, right).view(w.shape)
            w_i[i] = v
            pi[i] = pi[i] + penalty[i] * (v - w)
        yield w, [x.clone() for x in w_i], [x.clone() for x in pi]


def accumulated(m: int, scheme: SecondMoment, eps: float) -> Root:
    v = [0.0] * m

    def root(i: int, d: torch.Tensor, k: int) -> torch.Tensor:
        if isinstance(scheme, AdaGrad):
            v[i] = v[i] + d**2
        else:
            v[i] = scheme.beta * v[i] + (1 - scheme.beta) * d**2
        return v[i].sqrt() + eps

    return root


def orthogonalised(m: int, mu: float) -> Direction:
    b = [0.0] * m

    def direction(i: int, g: torch.Tensor) -> torch.Tensor:
        b[i] = mu * b[i] + g
        return orthogonalise(g + mu * b[i]) * shape_scale(*g.shape)

    return direction


E = 3
CASES = {
    "pisa": (PISA(sigma=30, rho=4, lam=0.05, local_steps=E), dict),
    "pisa-hessian": (
        PISA(sigma=9, rho=1, lam=0.05, preconditioner=Hessian(), local_steps=E),
        lambda: {"matrix": lambda A, b, v: A.T @ A},
    ),
    "pisa-fisher": (
        PISA(sigma=30, rho=1, lam=0.05, preconditioner=EmpiricalFisher(), local_steps=E),
        lambda: {"matrix": lambda A, b, v: (A * (A @ v - b)).T @ (A * (A @ v - b)) / len(A)},
    ),
    "pisa-no-Q": (PISA(sigma=40, rho=0, lam=0.05, local_steps=E), dict),
    "sisa": (SISA(sigma=30, rho=5, lam=0.05, local_steps=E), lambda: {"root": adam_root(3, 0.999, 1e-8)}),
    "sisa-rmsprop": (
        SISA(sigma=30, rho=5, lam=0.05, second_moment=RMSProp(0.9), local_steps=E),
        lambda: {"root": accumulated(3, RMSProp(0.9), 1e-8)},
    ),
    "sisa-adagrad": (
        SISA(sigma=30, rho=5, lam=0.05, second_moment=AdaGrad(), local_steps=E),
        lambda: {"root": accumulated(3, AdaGrad(), 1e-8)},
    ),
    "nsisa": (
        NSISA(rest=None, sigma=30, rho=5, lam=0.05, matrix_moment=Adam(0.9), local_steps=E),
        lambda: {"root": adam_root(3, 0.9, 1e-8), "direction": orthogonalised(3, 0.95)},
    ),
    "sisa_d": (SISAD(sigma=9, rho=27, beta=0.9, eps=1e-3, local_steps=E), lambda: {"metric": adam_root(3, 0.9, 1e-3)}),
}


def follows_the_textbook(problem, method, parts, rounds, **more):
    schedule = Geometric(0.9, 2)
    ours = library(problem, [method] * 3, [schedule] * 3, **more)
    theirs = textbook(problem, method.local_steps, method.sigma, method.rho, schedule, **parts, **more)
    for iteration, (one, (w, w_i, pi)) in enumerate(islice(zip(ours, theirs, strict=True), rounds), 1):
        torch.testing.assert_close(one.w, w, rtol=1e-9, atol=1e-11)
        for k, i in enumerate(more["reporters"](iteration) if more else range(3)):
            torch.testing.assert_close(one.w_i[k], w_i[i], rtol=1e-9, atol=1e-11)  # w + gap
            torch.testing.assert_close(one.pi_i[i], pi[i], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("partial", [False, True], ids=["all", "few"])
def test_three_steps_on_mini_batches_are_the_textbook_ones(name, partial):
    """Growing sigma; where few report, corrections count a shard's own steps."""
    method, parts = CASES[name]
    problem = random_problem(0, columns=2 if name in ("nsisa", "pisa") else 1)
    problem.parts = 4  # batches 0, 1, 2, then 3, 0, 1, ...
    problem.lam = method.lam
    more = {"reporters": lambda iteration: [0, 1, 2] if iteration == 1 else [iteration % 3]} if partial else {}
    follows_the_textbook(problem, method, parts(), 8, **more)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.5, 5.0, 50.0]), st.integers(1, 3))
def test_any_number_of_steps_is_the_textbook_one(seed, steps, rho, parts):
    problem = random_problem(seed)
    problem.parts = parts
    method = SISA(sigma=30, rho=rho, lam=0.05, second_moment=Adam(0.9), local_steps=steps)
    follows_the_textbook(problem, method, {"root": adam_root(3, 0.9, 1e-8)}, 5)


def report(
    method: AdmmRule, shard: ShardState, problem: LeastSquares, w: torch.Tensor, sigma: float, i: int = 0
) -> tuple[Message, torch.Tensor]:
    layout = Layout.of([("w", tuple(problem.w0.shape), True)])
    rows = RowLayout(w.numel(), method.penalties(layout).size)
    message, gap = rows.split(torch.full((rows.width,), float("nan"), dtype=w.dtype)), torch.empty_like(w)
    task = Task(w, Stream(problem, i).draw, sigma, layout, gap, steps=method.gradients(1, 1))
    method.step(shard, task, message)
    return message, gap


@pytest.mark.parametrize("name", [name for name in CASES if name != "nsisa"])  # whose duals tend to no gradient
def test_at_the_optimum_nothing_moves(name):
    problem, method = random_problem(1), CASES[name][0]
    w = problem.optimum().flatten()
    for i in range(3):
        shard = method.initial_state(w, Layout.of([("w", (6,), False)]))
        dual = -problem.gradient(i, w.view(6, 1)).flatten()
        shard.dual.copy_(dual)
        for _ in range(3):
            message, gap = report(method, shard, problem, w, 9.0, i)
            torch.testing.assert_close(gap, torch.zeros_like(w), rtol=0, atol=1e-12)
            torch.testing.assert_close(shard.dual, dual, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(message.N, message.M * w + dual, rtol=1e-12, atol=1e-12)


def test_without_a_preconditioner_the_steps_are_an_exact_gradient_recursion():
    """Q = 0: v <- w - (pi + grad F(v)) / sigma, a hundred times the exact minimiser of the local Lagrangian."""
    problem, sigma = random_problem(2), 60.0
    w, pi = problem.w0.flatten(), torch.linspace(-1, 1, 6, dtype=torch.float64)
    layout = Layout.of([("w", (6,), False)])
    for steps in (1, 2, 7, 100):
        method = PISA(sigma=sigma, rho=0, local_steps=steps)
        shard = method.initial_state(w, layout)
        shard.dual.copy_(pi)
        message, gap = report(method, shard, problem, w, sigma)
        v = w
        for _ in range(steps):
            v = w - (pi + problem.gradient(0, v.view(6, 1)).flatten()) / sigma
        torch.testing.assert_close(w + gap, v, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(shard.dual, pi + sigma * (v - w), rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(message.N, sigma * v + shard.dual, rtol=1e-11, atol=1e-11)
    A, b = problem.batch(0)
    exact = torch.linalg.solve(A.T @ A + sigma * torch.eye(6), (A.T @ b).flatten() - pi + sigma * w)
    torch.testing.assert_close(v, exact, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "method",
    [
        PISA(sigma=8, rho=40, lam=0.05, local_steps=5),
        SISA(sigma=8, rho=30, lam=0.05, second_moment=Adam(0.9), eps=1.0, local_steps=5),
        SISAD(sigma=8, rho=40, beta=0.9, eps=0.5, lam=0.05, local_steps=5),
    ],
    ids=lambda method: type(method).__name__,
)
def test_full_gradients_lead_to_the_optimum(method):
    """Though each shard goes a way of its own between two exchanges; FedAvg ends elsewhere."""
    problem = random_problem(3)
    run = library(problem, [method] * 3, [Geometric(1.0, 1)] * 3, diagnose=True)
    last = next(islice(run, 250, None))
    torch.testing.assert_close(last.w, problem.optimum(), rtol=1e-7, atol=1e-8)
    for name in ("primal_residual", "dual_residual", "consensus_residual"):
        assert last.diagnostics[name] < 1e-7


def test_steps_save_exchanges_where_sigma_is_small():
    """One exchange moves the flat directions by gradient / sigma, however many steps there are."""

    def error(steps: int, sigma: float, rho: float) -> float:
        problem, method = random_problem(3), PISA(sigma=sigma, rho=rho, lam=0.05, local_steps=steps)
        last = next(islice(library(problem, [method] * 3, [Geometric(1.0, 1)] * 3), 60, None))
        return float((last.w - problem.optimum()).norm())

    assert error(5, 40, 8) == pytest.approx(error(1, 40, 8), rel=0.3)
    assert error(5, 8, 40) < 1e-3 * error(5, 40, 8)
    assert error(5, 8, 40) < 1e-3 * error(1, 8, 40)


class Counted(Drawn):
    """Notes where its gradient is asked for."""

    points: list[torch.Tensor]

    def gradient(self, point, term=None):
        self.points.append(point)
        return super().gradient(point)


def test_the_first_gradient_is_at_w_itself_and_each_batch_is_drawn_when_the_step_before_is_done():
    """At w itself, so that the model need not be filled: with one step no vector is made or copied."""
    problem = random_problem(4)
    w = problem.w0.flatten()
    layout, rows = Layout.of([("w", (6,), False)]), RowLayout(6)
    for steps in (1, 3):
        method, points = PISA(sigma=30, rho=1, local_steps=steps), []

        def draw(points=points):
            drawn = Counted(problem, 0, len(points))
            drawn.points = points
            return drawn

        shard = method.initial_state(w, layout)
        message = rows.split(torch.empty(rows.width, dtype=w.dtype))
        method.step(shard, Task(w, draw, 30.0, layout, steps=steps), message)
        assert shard.reports == 1
        assert len(points) == steps
        assert points[0] is w
        assert all(point is not w for point in points[1:])


def test_nsisa_perturbs_by_the_number_of_the_local_step():
    method = NSISA(rest=None, sigma=4.0, rho=2.0, perturbation=1e-3, eps=1e-2, local_steps=2)
    layout, rows, w = Layout.of([("m", (2, 2), True)]), RowLayout(4), torch.zeros(4, dtype=torch.float64)
    shard = method.initial_state(w, layout)
    shard.reports = 1
    message = rows.split(torch.empty(rows.width, dtype=w.dtype))
    method.step(shard, Task(w, lambda: Known(torch.zeros_like(w)), 4.0, layout, steps=2), message)
    third = -4 * 1e-3**3 / (4 + 2 * 1e-2)  # then d is the dual itself, which is not 0
    fourth = third - 4 * third / (4 + 2 * (abs(third) + 1e-2))
    torch.testing.assert_close(shard.dual, torch.full_like(w, fourth), rtol=1e-9, atol=0)


def test_one_step_has_the_bits_of_the_plain_lines():
    """Each operation rounded by itself, in this order: nothing is added for the sake of more steps."""
    torch.manual_seed(0)
    w, *gradients = torch.randn(4, 70_001)
    layout, sigma = Layout.of([("b", (70_001,), False)]), 1.7

    def steps(method):
        rows = RowLayout(len(w), method.penalties(layout).size)
        message, gap = rows.split(torch.empty(rows.width)), torch.empty_like(w)
        shard = method.initial_state(w, layout)
        for g in gradients:
            method.step(shard, Task(w, lambda g=g: Known(g.clone()), sigma, layout, gap), message)
        return shard, message, gap

    def moment(m, d, beta):
        return m * beta + (d * d) * (1 - beta)

    for method in (PISA(rho=3), SISA(rho=3), SISAD(sigma=2, rho=18), NSISA(rest=None, rho=3)):
        shard, message, gap = steps(method)
        pi, m = torch.zeros_like(w), torch.zeros_like(w)
        for k, g in enumerate(gradients, 1):
            s: float | torch.Tensor = sigma
            if isinstance(method, PISA):
                move = (pi + g) / (sigma + 3.0) * -sigma
            elif isinstance(method, SISAD):
                m = moment(m, g, 0.99)
                s = ((m / (1 - 0.99**k)).rsqrt().reciprocal() + 1e-4) * sigma
                move = (pi + g) * -0.1
            else:
                m = moment(m, pi + g, 0.999)
                move = (pi + g) / (((m / (1 - 0.999**k)).rsqrt().reciprocal() + 1e-8) * 3.0 + sigma) * -sigma
            pi = pi + move
        assert torch.equal(shard.dual, pi)
        assert torch.equal(message.N, w * s + pi + move)
        assert torch.equal(gap, move / s)
