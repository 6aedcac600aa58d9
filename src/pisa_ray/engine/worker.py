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
from typing import Any

import numpy as np
import torch

from pisa_ray.algorithm import RowLayout, ShardState, Task, TreeSum
from pisa_ray.algorithm.diagnostics import ShardDiagnostics, shard_diagnostics
from pisa_ray.algorithm.message import Node
from pisa_ray.data import BatchStream, Rows, Source, generator, key
from pisa_ray.engine.device import choose_device, to_device, to_host
from pisa_ray.engine.evaluation import Sums, evaluate_rows
from pisa_ray.engine.files import Folder
from pisa_ray.engine.gradient import curvature, gradient
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import borrowed_tensor, environment, seed_all, set_numerics
from pisa_ray.engine.user_code import user_error
from pisa_ray.errors import ConfigError

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
        self._tree = TreeSum(len(job.shards))
        self._blocks: dict[tuple[str, int], Rows] = {}

    def info(self) -> WorkerInfo:
        """Process, host and numeric environment."""
        device = self.model.parameters.device
        return WorkerInfo(os.getpid(), socket.gethostname(), str(device), environment(device))

    def host(self, shards: Sequence[int]) -> None:
        """Take in shards at their initial state; their rows are read here, in one pass over the source."""
        job = self.job
        wanted = [rows for i in shards for rows in (job.shards[i], job.held_out[i])]
        read = job.train.read(np.concatenate(wanted)) if wanted else None
        start = 0
        for i in shards:
            parts: list[Rows] = []
            for rows in (job.shards[i], job.held_out[i]):
                assert read is not None  # noqa: S101  (for the type checker)
                parts.append(read.take(np.arange(start, start + len(rows))))
                start += len(rows)
            self.shards[i] = HostedShard(
                parts[0],
                parts[1],
                BatchStream(job.seed, i, len(job.shards[i]), job.batch_size),
                job.method.initial_state(self.model.parameters, self.model.layout),
            )

    def step(self, round_: int, sigma: float, published: np.ndarray, diagnose: bool) -> tuple[Payload, WorkerReport]:
        """One iteration of every hosted shard at the published w.

        Args:
            round_: The round, from 1.
            sigma: Its penalty.
            published: w and the floating buffers, [p + b]; only read.
            diagnose: Whether reports carry diagnostics and messages the duals.

        Returns:
            The messages, added up as far as the hosted shards allow (views of buffers that the next step overwrites),
            and the report.
        """
        start = time.perf_counter()
        model, p = self.model, self.model.layout.size
        model.load(published)
        model.module.train()
        rows = RowLayout(p, p if self.job.method.diagonal_penalty else 1, len(model.buffers), dual=diagnose)
        this = _Round(round_, sigma, published, rows)
        self._tree.clear()
        reports, gradient_seconds = {}, 0.0
        for i in sorted(self.shards):
            row = self._tree.buffer(rows.width, model.parameters)
            try:
                reports[i], seconds = self._report(i, this, row)
            except Exception as error:
                raise user_error(error, f"shard {i} in round {round_}") from error
            gradient_seconds += seconds
            self._tree.add((0, i), row, owned=True)
        payload = [(node, to_host(row)) for node, row in self._tree.nodes().items()]
        size = sum(array.nbytes for _, array in payload)
        return payload, WorkerReport(reports, size, gradient_seconds, time.perf_counter() - start)

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
        x, y = shard.rows.batch(shard.stream.positions(count))
        if job.preprocess.transform is not None:
            seed_all(job.seed, "augment", i, count)
        x = job.preprocess(to_device(x, device), training=True)
        if job.noise[i]:
            noise = generator(job.seed, "feature_noise", i, count).standard_normal(x.shape, dtype=np.float32)
            x = x + to_device(torch.from_numpy(noise), device) * job.noise[i]
        return x, to_device(y, device)

    def evaluate(self, published: np.ndarray, split: str, blocks: Sequence[int]) -> dict[int, Sums]:
        """Evaluate blocks of a split ("test" or "validation", a separate source) at a published w."""
        self.model.load(published)
        source = self.job.test if split == "test" else self.job.validation
        assert source is not None  # noqa: S101  (for the type checker)
        return {block: self._evaluate(self._block(split, source, block), split, block) for block in blocks}

    def _evaluate(self, rows: Rows, split: str, number: int) -> Sums:
        self.model.reset(0)
        seed_all(self.job.seed, f"evaluate {split}", number)
        try:
            return evaluate_rows(self.model, self.job, rows)
        except Exception as error:
            raise user_error(error, f"{split} {number}") from error

    def _block(self, split: str, source: Source, block: int) -> Rows:
        if (split, block) not in self._blocks:
            start = block * self.job.evaluation_rows
            rows = np.arange(start, min(start + self.job.evaluation_rows, source.rows))
            self._blocks[split, block] = source.read(rows)
        return self._blocks[split, block]

    def evaluate_shards(self, published: np.ndarray, *, held_out: bool) -> dict[int, Sums]:
        """Evaluate every hosted shard's own rows, held-out or training ones, at a published w."""
        self.model.load(published)
        return {
            i: self._evaluate(shard.held_out if held_out else shard.rows, "shard", i)
            for i, shard in sorted(self.shards.items())
        }

    def export(self, published: np.ndarray, rounds: int, path: str) -> str:
        """Write the plain model at a published w as safetensors; returns its weights_sha256."""
        self.model.load(published)
        self.model.reset(rounds)
        return self.model.save(Path(path))

    def save(self, folder: Folder, name: str) -> dict[str, object]:
        """Write the hosted shards' states to one file; returns its entry in the manifest."""
        scalars = {str(i): s.state.scalars() for i, s in self.shards.items()}
        return {**folder.write_tensors(name, self._states(self.shards)), "shards": scalars}

    def restore(self, folder: Folder, entries: Sequence[Mapping[str, Any]]) -> None:
        """Load the hosted shards' states from files of a checkpoint, whoever wrote them."""
        for entry in entries:
            mine = {str(i): i for i in self.shards if str(i) in entry["shards"]}
            if not mine:
                continue

            def is_mine(name: str, mine: Mapping[str, int] = mine) -> bool:
                return name.partition("/")[0] in mine

            saved = folder.read_tensors(entry, is_mine, self._states(mine.values()))
            for key_, i in mine.items():
                state = self.shards[i].state
                try:
                    state.load({name: saved[f"{i}/{name}"] for name in state.tensors()}, entry["shards"][key_])
                except (TypeError, ValueError) as error:
                    raise ConfigError(
                        f"{folder} does not fit shard {i} ({error}): resume with the same method."
                    ) from error

    def _states(self, shards: Iterable[int]) -> dict[str, torch.Tensor]:
        return {f"{i}/{name}": t for i in shards for name, t in self.shards[i].state.tensors().items()}
