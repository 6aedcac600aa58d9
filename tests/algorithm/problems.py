"""Least-squares problems, run twice: through the library, and as the textbook writes it (local copies, loops)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from pisa_ray.algorithm import Curvature, Layout, Method, RowLayout, ShardState, Task, TreeSum, consensus
from pisa_ray.algorithm.diagnostics import combine, shard_diagnostics
from pisa_ray.schedulers import Geometric


def state_sha256(state: ShardState) -> str:
    """The hash of all fields of a state and their names."""
    digest = hashlib.sha256()
    for name, value in sorted(state.tensors().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    digest.update(repr(sorted(state.scalars().items())).encode())
    return digest.hexdigest()


@dataclass
class LeastSquares:
    """F_i(w) = 0.5 ||A_i w - b_i||^2; mini-batch k has every `parts`-th of its rows, by default all."""

    A: list[torch.Tensor]
    b: list[torch.Tensor]
    alpha: list[float]
    lam: float
    w0: torch.Tensor
    parts: int = 1

    @classmethod
    def of(cls, problem: dict, dtype: torch.dtype = torch.float64) -> LeastSquares:
        tensors = {k: [torch.tensor(x, dtype=dtype) for x in problem[k]] for k in ("A", "b")}
        return cls(
            tensors["A"], tensors["b"], problem["alpha"], problem["lambda"], torch.tensor(problem["w0"], dtype=dtype)
        )

    def batch(self, i: int, k: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        rows = slice(k % self.parts, None, self.parts)
        return self.A[i][rows], self.b[i][rows]

    def loss(self, i: int, w: torch.Tensor, k: int = 0) -> torch.Tensor:
        A, b = self.batch(i, k)
        return 0.5 * (A @ w - b).square().sum()

    def gradient(self, i: int, w: torch.Tensor, k: int = 0) -> torch.Tensor:
        A, b = self.batch(i, k)
        return A.T @ (A @ w - b)

    def curvature(self, i: int, w: torch.Tensor, k: int = 0) -> Curvature:
        A, b = self.batch(i, k)
        return Curvature(
            w,
            outputs=lambda flat: A @ flat.view(self.w0.shape) - b,
            criterion=lambda z: 0.5 * z.square().sum(),
            sample_loss=lambda flat, j: 0.5 * (A[j] @ flat.view(self.w0.shape) - b[j]).square().sum(),
            samples=len(A),
        )

    def optimum(self) -> torch.Tensor:
        """The w that minimises sum_i alpha_i F_i(w) + (lambda/2) ||w||^2."""
        gram = sum(a * A.T @ A for a, A in zip(self.alpha, self.A, strict=True))
        right = sum(a * A.T @ b for a, A, b in zip(self.alpha, self.A, self.b, strict=True))
        return torch.linalg.solve(gram + self.lam * torch.eye(len(gram), dtype=gram.dtype), right)


def random_problem(seed: int, m: int = 3, p: int = 6, columns: int = 1, dtype=torch.float64) -> LeastSquares:
    random = torch.Generator().manual_seed(seed)
    A = [torch.randn(8, p, generator=random, dtype=torch.float64) for _ in range(m)]
    b = [torch.randn(8, columns, generator=random, dtype=torch.float64) for _ in range(m)]
    alpha = torch.rand(m, generator=random, dtype=torch.float64) + 0.1
    w0 = torch.randn(p, columns, generator=random, dtype=torch.float64)
    to = lambda tensors: [t.to(dtype) for t in tensors]  # noqa: E731
    return LeastSquares(to(A), to(b), (alpha / alpha.sum()).tolist(), 0.05, w0.to(dtype))


@dataclass
class Drawn:
    """Mini-batch k of shard i."""

    of: LeastSquares
    i: int
    k: int

    def gradient(self, point, term=None):
        return self.of.gradient(self.i, point.view(self.of.w0.shape), self.k).flatten()

    def curvature(self, point):
        return self.of.curvature(self.i, point, self.k)


@dataclass
class Stream:
    """The mini-batches of a shard, one after the other."""

    of: LeastSquares
    i: int
    drawn: int = 0

    def draw(self):
        self.drawn += 1
        return Drawn(self.of, self.i, self.drawn - 1)


class Known:
    """A batch whose gradient is known."""

    def __init__(self, g):
        self.g = g

    def gradient(self, point, term=None):
        return self.g

    def curvature(self, point):
        return None


def known(g):
    return lambda: Known(g)


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
    rows = RowLayout(layout.size, methods[0].penalties(layout).size)
    shards = [method.initial_state(w, layout) for method in methods]
    streams = [Stream(problem, i) for i in range(m)]
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
            methods[0].first_consensus(w, layout)
            if first and methods[0].vectors == 2
            else consensus(rows.split(tree.total()), problem.lam, torch.empty_like(w))
        )
        sigma = [sch.grow(s, iteration) for sch, s in zip(schedules, sigma, strict=True)]
        shape = problem.w0.shape
        reports, w_i = [], []
        for i in range(m) if reporters is None else reporters(iteration):
            message, gap = rows.split(leaves[i]), torch.empty_like(w)
            task = Task(w, streams[i].draw, sigma[i], layout, gap, steps=methods[i].gradients(1, 1))
            momentum = methods[i].step(shards[i], task, message)
            rows.complete(leaves[i], 1.0, w[:0])
            w_i.append((w + gap).view(shape))
            if diagnose:
                local = problem.gradient(i, w_i[-1], streams[i].drawn - 1).flatten()
                loss = float(problem.loss(i, w_i[-1], streams[i].drawn - 1))
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
