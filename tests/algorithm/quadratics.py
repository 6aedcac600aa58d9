"""Quadratic problems, and a method on some shards in plain loops."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from pisa_ray.algorithm import Layout, RowLayout, Task, TreeSum, Update

P = 6


@dataclass
class Quadratic:
    """F(w) = 1/2 ||A w - b||^2 on mini-batches that differ in b."""

    A: torch.Tensor
    b: list[torch.Tensor]
    drawn: int = 0

    def draw(self):
        self.drawn += 1
        return _At(self, self.b[(self.drawn - 1) % len(self.b)])


@dataclass
class _At:
    of: Quadratic
    b: torch.Tensor

    def gradient(self, point, term=None):
        gradient = self.of.A.T @ (self.of.A @ point - self.b)
        if term is not None:
            with torch.enable_grad():
                z = point.clone().requires_grad_()
                (extra,) = torch.autograd.grad(term(z[None], slice(0, 1)), z)
            gradient = gradient + extra
        return gradient

    def features(self, point):
        return point[None].clone()


def problem(shards=3, seed=0, batches=4):
    random = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(*size, generator=random)  # noqa: E731
    return [Quadratic(draw(P, P) / math.sqrt(P), [draw(P) for _ in range(batches)]) for _ in range(shards)]


@dataclass
class Run:
    """A method on some shards, as workers and consensus do it, with plain loops."""

    method: object
    shards: list
    alpha: list[float]
    w: torch.Tensor
    steps: list[int] | None = None
    growth: float = 1.0
    layout: Layout = field(default_factory=lambda: Layout.of([("a", (2, 2), True), ("b", (2,), False)]))

    def __post_init__(self):
        self.states = [self.method.initial_state(self.w, self.layout) for _ in self.shards]
        self.memory = self.method.initial_memory(self.layout)
        self.rows = RowLayout(P, P if self.method.vectors == 2 else 1)
        self.said = [None] * len(self.shards)
        self.sigma = self.method.sigma

    def round(self, reporters=None):
        reporters = range(len(self.shards)) if reporters is None else reporters
        self.sigma *= self.growth
        for i in reporters:
            row = torch.full((self.rows.width,), float("nan"))
            steps = self.steps[i] if self.steps else self.method.gradients(64, 64)
            gap = torch.empty(P)
            task = Task(self.w, self.shards[i].draw, self.sigma, self.layout, gap, self.memory.clone(), steps)
            self.method.step(self.states[i], task, self.rows.split(row))
            self.said[i] = self.rows.complete(row, self.alpha[i], torch.empty(0))
        speakers = sorted(range(len(self.shards)) if self.method.remembers else reporters)
        tree = TreeSum(len(self.shards))
        tree.expect(speakers)
        for i in speakers:
            tree.add((0, i), self.said[i])
        out = torch.empty(P)
        total = self.rows.split(tree.total().clone())
        self.method.update(Update(total, self.w, self.sigma, self.layout, out), self.memory)
        self.w = out
        return out

    def rounds(self, count, **kwargs):
        return torch.stack([self.round(**kwargs) for _ in range(count)])


ALPHA = [0.5, 0.3, 0.2]


def run(method, seed=0, **kwargs):
    return Run(method, problem(seed=seed), ALPHA, torch.linspace(-1, 1, P), **kwargs)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-6)


# Two shards by hand: F_1 = 1/2 (w - 1)^2 and F_2 = 1/2 (w + 2)^2 in every coordinate, alpha = (0.75, 0.25), w = 0.
# One step of length 0.1 from y goes to 0.9 y + 0.1 c; K steps from 0 to c (1 - 0.9^K), c = 1 and -2.


def two_shards(method, steps=(2, 2)):
    goals = [Quadratic(torch.eye(P), [torch.full((P,), c)]) for c in (1.0, -2.0)]
    return Run(method, goals, [0.75, 0.25], torch.zeros(P), list(steps))


def value(w):
    assert torch.equal(w, w[:1].expand(P))
    return float(w[0])
