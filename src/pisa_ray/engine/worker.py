"""A worker, which has a replica of the model and hosts shards; pisa_ray.actors makes it a Ray actor."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pisa_ray.algorithm import DualState, ShardState, TreeSum, compiled
from pisa_ray.algorithm.message import Node
from pisa_ray.data import key
from pisa_ray.engine.batch import ShardBatch
from pisa_ray.engine.device import choose_device, multiplies_bfloat16, to_host
from pisa_ray.engine.evaluation import SplitRows, Sums, evaluate_block, evaluate_shard
from pisa_ray.engine.hosted import HostedShard, ShardRows, make_batch, read_rows, row_groups
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import borrowed_tensor, environment, seed_all, set_numerics
from pisa_ray.engine.reports import Nodes, PastRound, Payload, RoundSpec, ShardReport, WorkerInfo, WorkerReport
from pisa_ray.engine.shard_step import ShardSteps
from pisa_ray.engine.states import States, StateValue, StoredStates
from pisa_ray.engine.user_code import user_error


class Worker:
    """Hosts shards, lets them report in rounds, and evaluates and saves the model.

    Args:
        job: The job.
        gpu: Whether the model and the states are on a GPU.
        process_is_ours: Whether the thread count may be set for good.

    Attributes:
        job: The present job.
        model: The replica.
        shards: The shards that it hosts.
        ahead: The next mini-batches by shard, each with its number in the stream.
    """

    def __init__(self, job: Job, *, gpu: bool = False, process_is_ours: bool = True) -> None:
        if process_is_ours:
            set_numerics(job.threads_per_worker)
        self.job = job
        device = choose_device(gpu)
        if device.type == "cuda":
            # So that a factory that makes parameters on the GPU is seeded there, too.
            torch.cuda.init()  # type: ignore[no-untyped-call]
        self.model = job.build_model(device)
        self.shards: dict[int, HostedShard] = {}
        self._prepared: dict[int, ShardRows] = {}
        self._tree, self._duals = self._trees()
        self._rows = job.rows(self.model.layout, len(self.model.buffers))
        compiled.use(job.compiled)
        self._drawn = 0  # the number of the mini-batch that was drawn last, in its shard's stream
        self._splits = SplitRows()
        self.ahead: dict[int, tuple[int, torch.Tensor, torch.Tensor]] = {}

    def _trees(self) -> tuple[TreeSum, TreeSum]:
        m = len(self.job.shards)
        trees = TreeSum(m), TreeSum(m)
        trees[1].expect(self.job.present)
        return trees

    def change(self, job: Job) -> None:
        """Go on with another job, which differs from this one in the shards that have joined or left the problem."""
        self.job = job
        for i in job.removed:
            self.shards.pop(i, None)
            self._prepared.pop(i, None)
            self.ahead.pop(i, None)
        self._tree, self._duals = self._trees()

    def info(self) -> WorkerInfo:
        """Return the process, the machine and the numeric environment."""
        device = self.model.parameters.device
        about = os.getpid(), socket.gethostname(), str(device), environment(device)
        return WorkerInfo(*about, multiplies_bfloat16(device))

    # Hosting shards

    def prepare(self, shards: Iterable[int]) -> None:
        """Read the rows of shards that this worker will host."""
        here = {i for i, shard in self.shards.items() if shard.rows is not None}
        self._prepared |= read_rows(self.job, [i for i in shards if i not in self._prepared and i not in here])

    def host(self, shards: Sequence[int], *origins: States | StoredStates, rows: bool = True) -> None:
        """Host shards, with the states that one of the origins has, or else with their initial states.

        Args:
            shards: The shards.
            origins: The states that are known.
            rows: Whether their rows may be read here; if not, only their states are kept, and they cannot report.
        """
        if rows:
            self.prepare(shards)
        for i in shards:
            own = self._prepared.pop(i, None) if rows else None
            if own is None and rows:  # hosted already
                own = self.shards[i].rows
            self.shards[i] = HostedShard(self._initial_state(), own)
        for origin in origins:
            if isinstance(origin, StoredStates):
                origin.load_into({i: self.shards[i].state for i in shards})
            else:
                for i in set(shards) & set(origin):
                    origin[i].load_into(self.shards[i].state)
        self._prepared.clear()  # rows of shards that did not come

    def _initial_state(self) -> ShardState:
        state = self.job.method.initial_state(self.model.parameters, self.model.layout)
        if self.job.messages_stand:
            state.said = self.model.parameters.new_zeros(self._rows.width)
        return state

    def release(self, shards: Sequence[int]) -> States:
        """Stop hosting shards, and return their states."""
        for i in shards:
            self.ahead.pop(i, None)
        return {i: StateValue.of(self.shards.pop(i).state) for i in shards}

    def snapshot(self, shards: Iterable[int]) -> States:
        """Return hosted shards' states, whose arrays may be views that the next report changes."""
        return {i: StateValue.of(self.shards[i].state) for i in shards}

    def hear(self, said: Mapping[int, np.ndarray]) -> None:
        """Take over the last messages of hosted shards, [width] each, which are only read."""
        for i, row in said.items():
            self.shards[i].state.said.copy_(borrowed_tensor(row))

    # Rounds

    def step(
        self,
        spec: RoundSpec,
        published: np.ndarray,
        shards: Sequence[int] | None = None,
        repeat: bool = False,
        absent: Collection[int] = (),
    ) -> tuple[Payload, WorkerReport]:
        """Let those of some hosted shards report that are reporters of a round, at the published w.

        Args:
            spec: The round.
            published: w, the floating buffers and the method's memory, [p + b + e]; only read.
            shards: The shards; None: all that are hosted.
            repeat: Whether absent shards' last messages are sent, too, to a consensus that does not have them.
            absent: Shards of the job, here or elsewhere, that cannot report.

        Returns:
            The payload for the consensus, in buffers that the next step overwrites, and the report.
        """
        began, start = time.monotonic(), time.perf_counter()
        steps = self._begin(spec, published)
        here = sorted(self.shards if shards is None else shards)
        reporters = self.job.reporters(spec.number, absent)
        reports, gradient_seconds = {}, 0.0
        self._tree.clear()
        self._tree.expect(reporters)
        for i in sorted(set(here) & set(reporters)):
            row = self._row(i)
            reports[i], seconds = self._step(i, steps, row)
            gradient_seconds += seconds
            if not self.job.messages_stand:
                self._tree.add((0, i), row, owned=True)
        if self.job.messages_stand:
            payload = self._standing(here if repeat else reports, here, diagnose=spec.diagnose)
        else:
            payload = Payload(_on_host(self._tree.nodes()), self._dual_sums(here, diagnose=spec.diagnose))
        return payload, WorkerReport(reports, payload.nbytes, gradient_seconds, time.perf_counter() - start, began)

    def replay(self, shards: Sequence[int], rounds: Sequence[PastRound], published: Sequence[np.ndarray]) -> None:
        """Let shards report again in past rounds, each at its own w, without messages, as those were counted then."""
        for past, w in zip(rounds, published, strict=True):
            again = sorted(set(shards) & past.reporters)
            if again:
                steps = self._begin(past.spec, w)
            for i in again:
                self._step(i, steps, self._row(i))

    def repeat(self, shards: Sequence[int], diagnose: bool) -> Payload:
        """Return the last messages of hosted shards, and with `diagnose` their duals, for a new consensus."""
        return self._standing(shards, shards, diagnose=diagnose)

    def _begin(self, spec: RoundSpec, published: np.ndarray) -> ShardSteps:
        return ShardSteps.at(self.job, self.model, self._rows, spec, published)

    def _step(self, i: int, steps: ShardSteps, row: torch.Tensor) -> tuple[ShardReport, float]:
        def draw(count: int, buffers: torch.Tensor) -> ShardBatch:
            return self.draw(i, count, steps.spec.number, buffers)

        try:
            return steps.step(i, self.shards[i].state, draw, row)
        except Exception as error:
            raise user_error(error, f"shard {i} in round {steps.spec.number}{self._row_groups(i)}") from error

    def _row(self, i: int) -> torch.Tensor:
        """Return the memory for a shard's next message."""
        if self.job.messages_stand:
            return self.shards[i].state.said
        return self._tree.buffer(self._rows.width, self.model.parameters)

    def _standing(self, speakers: Iterable[int], here: Sequence[int], *, diagnose: bool) -> Payload:
        rows = [(i, self.shards[i].state.said) for i in speakers]
        messages = [((0, i), to_host(row)) for i, row in rows if self._rows.split(row).weight > 0]  # 0: nothing yet
        return Payload(messages, self._dual_sums(here, diagnose=diagnose))

    def _dual_sums(self, here: Sequence[int], *, diagnose: bool) -> Nodes:
        """Return sums of alpha_i pi_i' over shards, including those that have not reported."""
        tree = self._duals
        tree.clear()
        for i in here if diagnose and self.job.method.duals else ():
            state = self.shards[i].state
            assert isinstance(state, DualState)  # noqa: S101  (for the type checker)
            row = tree.buffer(len(state.dual), state.dual)
            tree.add((0, i), torch.mul(state.dual, self.job.alpha[i], out=row), owned=True)
        return _on_host(tree.nodes())

    def slope(self, published: np.ndarray, shards: Collection[int], speakers: Sequence[int]) -> dict[Node, np.ndarray]:
        """Return sums of alpha_i [ g_i | |g_i| | g_i^2 | 1 ] at a point, on the shards' first mini-batches.

        Args:
            published: The point and the floating buffers, [p + b + e].
            shards: The hosted shards to use.
            speakers: All shards in the sum, here or elsewhere, ascending.

        Returns:
            The sums of the tree nodes that these shards complete, [3 p + 1] each.
        """
        steps = self._begin(RoundSpec(1, 0.0), published)
        tree = TreeSum(len(self.job.shards))
        tree.expect(speakers)
        for i in sorted(shards):
            try:
                g = self.draw(i, 0, 1, steps.buffers).gradient(self.model.w)
            except Exception as error:
                raise user_error(error, f"shard {i} at the initial model{self._row_groups(i)}") from error
            row = torch.cat([g, g.abs(), g.square(), g.new_ones(1)])
            tree.add((0, i), row.mul_(self.job.alpha[i]), owned=True)
        return dict(_on_host(tree.nodes()))

    # Mini-batches

    def draw(self, i: int, count: int, round_: int, buffers: torch.Tensor) -> ShardBatch:
        """Return mini-batch number `count` (from 0) of a shard in a round, given the buffers before it."""

        def begin() -> None:
            self.model.reset(round_ - 1)
            seed_all(self.job.seed, "forward", i, count)

        self._drawn = count
        ahead = self.ahead.pop(i, None)
        _, x, y = ahead if ahead is not None and ahead[0] == count else (count, *self.batch(i, count))
        probes = key(self.job.seed, "probes", i, count)
        return ShardBatch(self.model, self.job, x, y, buffers, begin, probes)

    def prefetch(self, shards: Iterable[int]) -> None:
        """Make the next mini-batches of hosted shards ahead, unless they consist of all rows."""
        if self.job.batch_size == "full":
            return
        for i in (i for i in set(shards) & set(self.shards) if self.shards[i].rows is not None):
            count = self.shards[i].state.reports * self.job.steps(i)
            self.ahead[i] = (count, *self.batch(i, count))

    def batch(self, i: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the model's inputs and the targets of mini-batch number `count` (from 0) of a shard."""
        return make_batch(self.job, i, self.shards[i].own_rows, count, self.model.parameters.device)

    def _row_groups(self, i: int) -> str:
        return row_groups(self.job, i, self.shards[i].own_rows, self._drawn)

    # The model at a published w

    def evaluate(
        self, published: np.ndarray, split: str, blocks: Sequence[int], rows: int | None = None
    ) -> dict[int, Sums]:
        """Evaluate blocks of a split ("test" or "validation", a separate source), or of so many of its rows."""
        self.model.load(published)
        job, model = self.job, self.model
        return {k: evaluate_block(model, job, self._splits.block(job, split, k, rows), split, k) for k in blocks}

    def evaluate_shards(
        self, published: np.ndarray, shards: Sequence[int], *, held_out: bool, rows: int | None = None
    ) -> dict[int, Sums]:
        """Evaluate hosted shards' own rows; see evaluation.evaluate_shard.

        Args:
            published: w and the floating buffers, [p + b + e].
            shards: The shards.
            held_out: Whether the held-out rows are evaluated.
            rows: The number of rows of each shard, evenly spaced; None: all.
        """
        self.model.load(published)
        evaluate = partial(evaluate_shard, self.model, self.job, held_out=held_out, rows=rows)
        return {i: evaluate(i, own) for i, own in {i: self.shards[i].own_rows for i in shards}.items()}

    def export(self, published: np.ndarray, rounds: int, path: str) -> str:
        """Write the plain model at a published w as safetensors, and return its weights_sha256."""
        self.model.load(published)
        self.model.reset(rounds)
        return self.model.save(Path(path))


def _on_host(nodes: dict[Node, torch.Tensor]) -> Nodes:
    return [(node, to_host(row)) for node, row in nodes.items()]
