"""Least-squares problems, run twice: through the library, and as the textbook writes it (local copies, loops)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from pisa_ray.algorithm import Curvature, Layout, Method, RowLayout, Task, TreeSum, consensus
from pisa_ray.algorithm.diagnostics import combine, shard_diagnostics
from pisa_ray.schedulers import Geometric


@dataclass
class LeastSquares:
    """F_i(w) = 0.5 ||A_i w - b_i||^2, full gradients."""

    A: list[torch.Tensor]
    b: list[torch.Tensor]
    alpha: list[float]
    lam: float
    w0: torch.Tensor

    @classmethod
    def of(cls, problem: dict, dtype: torch.dtype = torch.float64) -> LeastSquares:
        tensors = {k: [torch.tensor(x, dtype=dtype) for x in problem[k]] for k in ("A", "b")}
        return cls(
            tensors["A"], tensors["b"], problem["alpha"], problem["lambda"], torch.tensor(problem["w0"], dtype=dtype)
        )

    def loss(self, i: int, w: torch.Tensor) -> torch.Tensor:
        return 0.5 * (self.A[i] @ w - self.b[i]).square().sum()

    def gradient(self, i: int, w: torch.Tensor) -> torch.Tensor:
        return self.A[i].T @ (self.A[i] @ w - self.b[i])

    def curvature(self, i: int, w: torch.Tensor) -> Curvature:
        return Curvature(
            w,
            outputs=lambda flat: self.A[i] @ flat.view(self.w0.shape) - self.b[i],
            criterion=lambda z: 0.5 * z.square().sum(),
            sample_loss=lambda flat, j: 0.5 * (self.A[i][j] @ flat.view(self.w0.shape) - self.b[i][j]).square().sum(),
            samples=len(self.A[i]),
        )


class Known:
    """A batch whose gradient is known."""

    def __init__(self, g, curvature=None):
        self.g, self.curvature = g, curvature

    def gradient(self, point, term=None):
        return self.g


def known(g, curvature=None):
    return lambda: Known(g, curvature)


@dataclass
class Iterate:
    w: torch.Tensor
    w_i: list[torch.Tensor]
    pi_i: list[torch.Tensor]
    sigma: list[float]
    diagnostics: dict[str, float | None]


def library(
    problem: LeastSquares,
    methods: Sequence[Method],
    schedules: Sequence[Geometric],
    *,
    reporters: Callable[[int], Sequence[int]] | None = None,
    diagnose: bool = False,
) -> Iterator[Iterate]:
    """The library's step, message and tree, one method and schedule a shard; endless."""
    w, m = problem.w0.flatten(), len(methods)
    layout = Layout.of([("w", tuple(problem.w0.shape), True)])
    rows = RowLayout(layout.size, methods[0].vectors)
    shards = [method.initial_state(w, layout) for method in methods]
    sigma = [method.sigma for method in methods]
    leaves = [torch.empty(rows.width, dtype=w.dtype) for _ in range(m)]
    for leaf, s in zip(leaves, sigma, strict=True):  # everybody stands at w_init with no dual
        message = rows.split(leaf)
        message.N.copy_(w * s)
        message.M.fill_(s)
        message.weight.fill_(1)
    iteration = 0
    while True:
        iteration += 1
        tree = TreeSum(m)
        for i in range(m):
            tree.add((0, i), leaves[i] * problem.alpha[i])
        first = iteration == 1
        w = (
            methods[0].first_consensus(w)
            if first and methods[0].vectors == 2
            else consensus(rows.split(tree.total()), problem.lam, torch.empty_like(w))
        )
        sigma = [sch.grow(s, iteration) for sch, s in zip(schedules, sigma, strict=True)]
        shape = problem.w0.shape
        reports, w_i = [], []
        for i in range(m) if reporters is None else reporters(iteration):
            message, gap = rows.split(leaves[i]), torch.empty_like(w)
            g = problem.gradient(i, w.view(shape)).flatten()
            momentum = methods[i].step(
                shards[i], Task(w, known(g, problem.curvature(i, w)), sigma[i], layout, gap), message
            )
            rows.complete(leaves[i], 1.0, w[:0])
            w_i.append((w + gap).view(shape))
            if diagnose:
                local = problem.gradient(i, w_i[-1]).flatten()
                loss = float(problem.loss(i, w_i[-1]))
                reports.append(shard_diagnostics(gap, shards[i].dual, message.M, local, loss, momentum))
        numbers = {}
        if diagnose:
            numbers = combine(reports, problem.alpha)
            numbers["augmented_lagrangian"] += problem.lam / 2 * float(w.square().sum())
            dual = sum(a * s.dual for a, s in zip(problem.alpha, shards, strict=True))
            numbers["consensus_residual"] = float((dual - problem.lam * w).norm())
        yield Iterate(w.view(shape), w_i, [s.dual.view(shape).clone() for s in shards], list(sigma), numbers)


def textbook(
    problem: LeastSquares,
    sigma: Sequence[float],
    rho: Sequence[float],
    schedules: Sequence[Geometric],
    *,
    root: Callable[[int, torch.Tensor, int], torch.Tensor] = lambda i, d, k: torch.ones_like(d),
    direction: Callable[[int, torch.Tensor], torch.Tensor] = lambda i, g: g,
    mistake: str | None = None,
) -> Iterator[torch.Tensor]:
    """Sections 2.1 to 2.4 as printed: local copies w_i are stored, one line a formula; endless w.

    `root` is (shard, d, k) -> sqrt(m) + eps, the entries of Q; `direction` is (shard, g) -> what is added to the dual,
    where NSISA orthogonalises; `mistake` is one of the traps, made on purpose.
    """
    m, alpha, sigma = len(problem.A), problem.alpha, list(sigma)
    w_i, pi = [problem.w0.clone() for _ in range(m)], [0 * problem.w0] * m
    iteration = 0
    while True:
        iteration += 1
        if mistake == "grow_before_consensus":
            sigma = [schedule.grow(s, iteration) for schedule, s in zip(schedules, sigma, strict=True)]
        mean_sigma = sum(a * s for a, s in zip(alpha, sigma, strict=True))
        if mistake == "alpha_in_place" and iteration > 1:  # the message was right, but what is stored is alpha pi
            numerator = sum(a * s * x + y for a, s, x, y in zip(alpha, sigma, w_i, pi, strict=True))
            w = numerator / (mean_sigma + problem.lam)
        elif mistake == "l2_on_dual_only":
            w = sum(a * s * x for a, s, x in zip(alpha, sigma, w_i, strict=True)) / mean_sigma
            w = w + sum(a * y for a, y in zip(alpha, pi, strict=True)) / (mean_sigma + problem.lam)
        else:
            w = sum(a * (s * x + y) for a, s, x, y in zip(alpha, sigma, w_i, pi, strict=True)) / (
                mean_sigma + problem.lam
            )
        if mistake != "grow_before_consensus":
            sigma = [schedule.grow(s, iteration) for schedule, s in zip(schedules, sigma, strict=True)]
        for i in range(m):
            g = problem.gradient(i, w_i[i] if mistake == "gradient_at_local" else w)
            d = pi[i] + direction(i, g)
            q = root(i, d, 1 if mistake == "bias_step_stuck_at_1" else iteration)
            w_i[i] = w - d / (sigma[i] + rho[i] * q)
            pi[i] = pi[i] + sigma[i] * (w_i[i] - w)
            if mistake == "alpha_in_place":
                pi[i] = alpha[i] * pi[i]
        yield w


def adam_root(m: int, beta: float, eps: float) -> Callable[[int, torch.Tensor, int], torch.Tensor]:
    """SISA's entries of Q for `textbook`: bias-corrected second moment of d."""
    v: list[torch.Tensor | float] = [0.0] * m

    def root(i: int, d: torch.Tensor, k: int) -> torch.Tensor:
        v[i] = beta * v[i] + (1 - beta) * d**2
        return (v[i] / (1 - beta**k)).sqrt() + eps

    return root
