"""The step of one shard in a round: its mini-batches, its local update, its message and its report."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from pisa_ray.algorithm import DualState, Message, RowLayout, ShardState, Task, clip_dual
from pisa_ray.algorithm.diagnostics import ShardDiagnostics, shard_diagnostics
from pisa_ray.algorithm.message import keep_buffers
from pisa_ray.engine.batch import ShardBatch
from pisa_ray.engine.flat_model import FlatModel
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import RoundSpec, ShardReport

#: Makes a mini-batch: (its number in the shard's stream, the buffers before it) -> the mini-batch.
Draw = Callable[[int, torch.Tensor], ShardBatch]


@dataclass(frozen=True)
class ShardSteps:
    """A round on a worker, in which shards take their steps one after the other.

    Attributes:
        job: The job.
        model: The replica, which has w.
        rows: The layout of messages.
        spec: The round.
        buffers: The published floating buffers, [b].
        memory: The method's memory, [e].
    """

    job: Job
    model: FlatModel
    rows: RowLayout
    spec: RoundSpec
    buffers: torch.Tensor
    memory: torch.Tensor

    @classmethod
    def at(cls, job: Job, model: FlatModel, rows: RowLayout, spec: RoundSpec, published: np.ndarray) -> ShardSteps:
        """Load a published vector, [p + b + e], into the model."""
        memory = model.load(published)
        model.module.train()
        return cls(job, model, rows, spec, model.buffers.clone(), memory)

    def step(self, i: int, state: ShardState, draw: Draw, row: torch.Tensor) -> tuple[ShardReport, float]:
        """Take the step of one shard.

        Args:
            i: The shard.
            state: Its state, which is updated in place.
            draw: Makes its mini-batches.
            row: Receives its message, [width].

        Returns:
            The shard's report, and the seconds spent on gradients.
        """
        job, model = self.job, self.model
        gap = torch.empty_like(model.parameters) if self.spec.diagnose else None
        message, steps = self.rows.split(row), job.steps(i)
        drawn = _Drawn(draw, state.reports * steps, self.buffers)
        weighed = job.method.weighs and gap is None and not job.clips
        alpha = job.alpha[i] if weighed else 1.0
        task = Task(model.w, drawn.draw, self.spec.sigma, model.layout, gap, self.memory, steps, alpha)
        step = partial(self._clipped_step, i) if job.clips else job.method.step
        momentum = step(state, task, message)
        state.version = self.spec.number
        loss, samples, seconds = drawn.settle()
        dual = state.dual if isinstance(state, DualState) else None
        penalty = (
            job.method.penalties(model.layout).spread(message.M).clone()
            if gap is not None and dual is not None
            else message.M
        )
        self.rows.complete(row, job.alpha[i], drawn.last.left, weighed=weighed)
        if model.unaveraged:  # if messages stand, the consensus can take the first shard's
            first = job.messages_stand or i == job.reporters(self.spec.number)[0]
            keep_buffers(message, drawn.last.left[-model.unaveraged :], speaks=first)
        diagnostics = None
        if gap is not None and dual is not None:
            local_gradient = drawn.last.gradient(model.w + gap)
            diagnostics = shard_diagnostics(gap, dual, penalty, local_gradient, drawn.last.loss, momentum)
        elif gap is not None:
            diagnostics = ShardDiagnostics(gap=float(gap.double().square().sum()))
        finite = math.isfinite(loss) and bool(torch.isfinite(message.N.sum()))
        return ShardReport(loss, samples, finite, diagnostics), seconds

    def _clipped_step(self, i: int, state: ShardState, task: Task, message: Message) -> float | None:
        """Take a step whose change of the dual has a limit, the last entry of the consensus' memory; see Clip."""
        assert isinstance(state, DualState)  # noqa: S101  (for the type checker)
        assert task.memory is not None  # noqa: S101  (for the type checker)
        before, (memory, limit) = state.dual.clone(), task.memory.tensor_split([-1])
        momentum = self.job.method.step(state, replace(task, memory=memory), message)
        message.norms.zero_()
        penalty = self.job.method.penalties(task.layout).spread(message.M)
        message.norms[i] = clip_dual(state, before, task, message, penalty, float(limit))
        return momentum


class _Drawn:
    """The mini-batches of one step; only the last one stays in memory.

    Args:
        draw: Makes a mini-batch.
        first: The number of the first mini-batch in the shard's stream.
        buffers: The buffers before the first mini-batch.
    """

    def __init__(self, draw: Draw, first: int, buffers: torch.Tensor) -> None:
        self._draw, self._next, self._buffers = draw, first, buffers
        self._number, self._samples, self._loss, self._seconds = 0, 0, 0.0, 0.0
        self._last: ShardBatch | None = None

    def draw(self) -> ShardBatch:
        """Return the next mini-batch, which begins with the buffers that the last one left."""
        buffers = self._buffers if self._last is None else self._last.left
        self._count()
        self._last = self._draw(self._next, buffers)
        self._next += 1
        return self._last

    @property
    def last(self) -> ShardBatch:
        """The last mini-batch."""
        assert self._last is not None  # noqa: S101  (every method draws)
        return self._last

    def settle(self) -> tuple[float, int, float]:
        """Return the mean loss, the rows and the seconds of all mini-batches; to be called once, at the end."""
        self._count()
        return self._loss / self._number, self._samples, self._seconds

    def _count(self) -> None:
        if self._last is not None:
            self._number += 1
            self._loss += self._last.loss
            self._samples += len(self._last)
            self._seconds += self._last.seconds
