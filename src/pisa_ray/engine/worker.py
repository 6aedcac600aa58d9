"""A worker: one model replica and the shards it hosts. A plain class; pisa_ray.actors makes it a Ray actor."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pisa_ray.algorithm import RowLayout, ShardState, Task, TreeSum
from pisa_ray.algorithm.diagnostics import ShardDiagnostics, shard_diagnostics
from pisa_ray.algorithm.message import Node
from pisa_ray.data import BatchStream, Rows, Source, key
from pisa_ray.engine.device import choose_device, to_device, to_host
from pisa_ray.engine.evaluation import Distort, Sums, evaluate_rows
from pisa_ray.engine.gradient import curvature, gradient
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import borrowed_tensor, environment, seed_all, set_numerics
from pisa_ray.engine.states import States, StateValue, StoredStates
from pisa_ray.engine.user_code import user_error

#: Sums of messages by tree node, ready to be sent: float32 arrays, [width] each.
Payload = list[tuple[Node, np.ndarray]]


@dataclass
class HostedShard:
    """A shard at home: its rows, its stream and its local ADMM state."""

    rows: Rows
    held_out: Rows
    stream: BatchStream
    state: ShardState


@dataclass(frozen=True)
class ShardReport:
    """The small numbers of one shard's report."""

    loss: float
    samples: int
    finite: bool
    diagnostics: ShardDiagnostics | None


@dataclass(frozen=True)
class WorkerReport:
    """What a worker tells the driver of a round; vectors go to the consensus."""

    shards: dict[int, ShardReport]
    bytes_sent: int
    gradient_seconds: float
    seconds: float
    began: float  # by this process's clock


@dataclass(frozen=True)
class WorkerInfo:
    """Who a worker is."""

    pid: int
    node: str
    device: str
    environment: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Round:
    number: int
    sigma: float
    published: np.ndarray
    rows: RowLayout


class Worker:
    """Hosts shards: gradients at w, local updates, evaluation, saving.

    Args:
        job: What is trained.
        gpu: Whether the model and the states live on a GPU.
        process_is_ours: Whether the thread count may be set for good.
    """

    def __init__(self, job: Job, *, gpu: bool = False, process_is_ours: bool = True) -> None:
        if process_is_ours:
            set_numerics(job.threads)
        self.job = job
        device = choose_device(gpu)
        if device.type == "cuda":
            # So that a factory that makes parameters on the GPU is seeded there too.
            torch.cuda.init()  # type: ignore[no-untyped-call]
        self.model = job.build_model(device)
        self.shards: dict[int, HostedShard] = {}
        self._prepared: dict[int, HostedShard] = {}
        self._tree = TreeSum(len(job.shards))
        self._blocks: dict[tuple[str, int], Rows] = {}

    def info(self) -> WorkerInfo:
        """Process, host and numeric environment."""
        device = self.model.parameters.device
        return WorkerInfo(os.getpid(), socket.gethostname(), str(device), environment(device))

    def prepare(self, shards: Iterable[int]) -> None:
        """Read the rows of shards that are expected here, in one pass over the source."""
        job = self.job
        missing = [i for i in shards if i not in self._prepared and i not in self.shards]
        wanted = [rows for i in missing for rows in (job.shards[i], job.held_out[i])]
        read = job.train.read(np.concatenate(wanted)) if wanted else None
        start = 0
        for i in missing:
            parts: list[Rows] = []
            for rows in (job.shards[i], job.held_out[i]):
                assert read is not None  # noqa: S101  (for the type checker)
                parts.append(read.take(np.arange(start, start + len(rows))))
                start += len(rows)
            self._prepared[i] = HostedShard(
                parts[0],
                parts[1],
                BatchStream(job.seed, i, len(job.shards[i]), job.batch_size),
                job.method.initial_state(self.model.parameters, self.model.layout),
            )

    def host(self, shards: Sequence[int], *origins: States | StoredStates) -> None:
        """Take in shards, at the states that one of the origins has of them, else at their initial state."""
        self.prepare(shards)
        for i in shards:
            if i in self._prepared:
                self.shards[i] = self._prepared.pop(i)
            else:  # hosted already
                self.shards[i].state = self.job.method.initial_state(self.model.parameters, self.model.layout)
        for origin in origins:
            if isinstance(origin, StoredStates):
                origin.load_into({i: self.shards[i].state for i in shards})
            else:
                for i in set(shards) & set(origin):
                    origin[i].load_into(self.shards[i].state)
        self._prepared.clear()  # what was expected and did not come

    def snapshot(self, shards: Iterable[int]) -> States:
        """Hosted shards' states; the arrays may be views that the next step changes."""
        return {i: StateValue.of(self.shards[i].state) for i in shards}

    def release(self, shards: Sequence[int]) -> States:
        """Let go of shards; returns their states."""
        return {i: StateValue.of(self.shards.pop(i).state) for i in shards}

    def replay(
        self, shards: Sequence[int], rounds: Sequence[tuple[int, float]], published: Sequence[np.ndarray]
    ) -> None:
        """Step some shards through past rounds, each (number, sigma) at its own w; their messages were counted then."""
        p = self.model.layout.size
        rows = RowLayout(p, p if self.job.method.diagonal_penalty else 1, len(self.model.buffers))
        scratch = self.model.parameters.new_empty(rows.width)
        for (number, sigma), w in zip(rounds, published, strict=True):
            self.model.load(w)
            self.model.module.train()
            for i in shards:
                self._try_report(i, _Round(number, sigma, w, rows), scratch)

    def step(
        self, round_: int, sigma: float, published: np.ndarray, diagnose: bool, shards: Sequence[int] | None = None
    ) -> tuple[Payload, WorkerReport]:
        """One iteration of hosted shards at the published w.

        Args:
            round_: The round, from 1.
            sigma: Its penalty.
            published: w and the floating buffers, [p + b]; only read.
            diagnose: Whether reports carry diagnostics and messages the duals.
            shards: Which; None: all that are hosted.

        Returns:
            The messages, added up as far as the shards allow (views of buffers that the next step overwrites),
            and the report.
        """
        began, start = time.monotonic(), time.perf_counter()
        model, p = self.model, self.model.layout.size
        model.load(published)
        model.module.train()
        rows = RowLayout(p, p if self.job.method.diagonal_penalty else 1, len(model.buffers), dual=diagnose)
        this = _Round(round_, sigma, published, rows)
        self._tree.clear()
        reports, gradient_seconds = {}, 0.0
        for i in sorted(self.shards if shards is None else shards):
            row = self._tree.buffer(rows.width, model.parameters)
            reports[i], seconds = self._try_report(i, this, row)
            gradient_seconds += seconds
            self._tree.add((0, i), row, owned=True)
        payload = [(node, to_host(row)) for node, row in self._tree.nodes().items()]
        size = sum(array.nbytes for _, array in payload)
        return payload, WorkerReport(reports, size, gradient_seconds, time.perf_counter() - start, began)

    def _try_report(self, i: int, this: _Round, row: torch.Tensor) -> tuple[ShardReport, float]:
        try:
            return self._report(i, this, row)
        except Exception as error:
            raise user_error(error, f"shard {i} in round {this.number}{self._row_groups(i)}") from error

    def _row_groups(self, i: int) -> str:
        """Where in the training file the rows of a shard's current mini-batch are, as far as there are places."""
        starts = self.job.train.starts()
        if len(starts) <= 2:
            return ""
        rows = self.job.shards[i][self.shards[i].stream.positions(self.shards[i].state.reports)]
        groups = [str(g) for g in np.unique(np.searchsorted(starts, rows, side="right") - 1)]
        shown = ", ".join(groups[:8]) + (f" and {len(groups) - 8} more" if len(groups) > 8 else "")
        return f" (rows from row group{'s' if len(groups) > 1 else ''} {shown})"

    def _report(self, i: int, this: _Round, row: torch.Tensor) -> tuple[ShardReport, float]:
        """Gradient, local update and message (to `row`) of one shard; returns its report and the gradient's seconds."""
        job, model, shard = self.job, self.model, self.shards[i]
        count = shard.state.reports
        x, y = self._batch(i, count)
        reseed = partial(seed_all, job.seed, "forward", i, count)

        def run() -> float:
            model.buffers.copy_(borrowed_tensor(this.published[model.layout.size :]))
            model.reset(this.number - 1)
            reseed()
            return gradient(model, job, x, y)

        start = time.perf_counter()
        versions, loss = model.versions(), run()
        seconds = time.perf_counter() - start
        message, buffers = this.rows.split(row), model.buffers.clone()
        if model.versions() != versions:  # the forward pass wrote to w; the shards' w is the published one
            model.load(this.published)
        gap = torch.empty_like(model.parameters) if this.rows.dual else None
        probes = torch.Generator(model.parameters.device).manual_seed(key(job.seed, "probes", i, count))
        curves = curvature(model, job, x, y, reseed, probes)
        task = Task(model.parameters, model.gradient, this.sigma, model.layout, curves, gap)
        momentum = job.method.step(shard.state, task, message)
        diagnostics = None
        if gap is not None:
            model.parameters.add_(gap)
            local_loss = run()
            diagnostics = shard_diagnostics(
                gap, shard.state.dual, message.penalty, model.gradient, local_loss, momentum
            )
            model.load(this.published)
        this.rows.complete(row, job.alpha[i], buffers, shard.state.dual)
        finite = math.isfinite(loss) and bool(torch.isfinite(message.numerator.sum()))
        return ShardReport(loss, len(y), finite, diagnostics), seconds

    def _batch(self, i: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The mini-batch of a shard's report number `count` (from 0), as the model sees it."""
        job, shard, device = self.job, self.shards[i], self.model.parameters.device
        positions = shard.stream.positions(count)
        x, y = shard.rows.batch(positions)
        if job.preprocess.transform is not None:
            seed_all(job.seed, "augment", i, count)
        x = job.preprocess(to_device(x, device), training=True)
        return job.distort(x, to_device(y, device), i, job.shards[i][positions], count)

    def evaluate(self, published: np.ndarray, split: str, blocks: Sequence[int]) -> dict[int, Sums]:
        """Evaluate blocks of a split ("test" or "validation", a separate source) at a published w."""
        self.model.load(published)
        source = self.job.test if split == "test" else self.job.validation
        assert source is not None  # noqa: S101  (for the type checker)
        return {block: self._evaluate(self._block(split, source, block), split, block) for block in blocks}

    def _evaluate(self, rows: Rows, split: str, number: int, distort: Distort | None = None) -> Sums:
        self.model.reset(0)
        seed_all(self.job.seed, f"evaluate {split}", number)
        try:
            return evaluate_rows(self.model, self.job, rows, distort)
        except Exception as error:
            raise user_error(error, f"{split} {number}") from error

    def _block(self, split: str, source: Source, block: int) -> Rows:
        if (split, block) not in self._blocks:
            start = block * self.job.evaluation_rows
            rows = np.arange(start, min(start + self.job.evaluation_rows, source.rows))
            self._blocks[split, block] = source.read(rows)
        return self._blocks[split, block]

    def evaluate_shards(self, published: np.ndarray, shards: Sequence[int], *, held_out: bool) -> dict[int, Sums]:
        """Evaluate hosted shards' own rows, held-out or training ones, as distorted as they are there."""
        self.model.load(published)
        job = self.job
        rows = {i: self.shards[i].held_out if held_out else self.shards[i].rows for i in shards}

        def distort(x: torch.Tensor, y: torch.Tensor, positions: np.ndarray, i: int) -> tuple[torch.Tensor, ...]:
            return job.distort(x, y, i, (job.held_out if held_out else job.shards)[i][positions])

        return {i: self._evaluate(rows[i], "shard", i, partial(distort, i=i)) for i in shards}

    def export(self, published: np.ndarray, rounds: int, path: str) -> str:
        """Write the plain model at a published w as safetensors; returns its weights_sha256."""
        self.model.load(published)
        self.model.reset(rounds)
        return self.model.save(Path(path))
