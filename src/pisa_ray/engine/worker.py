"""A worker: one model replica and the shards it hosts. A plain class; pisa_ray.actors makes it a Ray actor."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pisa_ray.algorithm import DualState, Message, ShardState, Task, TreeSum, clip_dual, compiled
from pisa_ray.algorithm.diagnostics import ShardDiagnostics, shard_diagnostics
from pisa_ray.algorithm.message import Node, keep_buffers
from pisa_ray.data import BatchStream, Rows, Source, key
from pisa_ray.engine.batch import ShardBatch
from pisa_ray.engine.device import choose_device, multiplies_bfloat16, to_device, to_host
from pisa_ray.engine.evaluation import Distort, Sums, evaluate_rows
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import borrowed_tensor, environment, seed_all, set_numerics
from pisa_ray.engine.states import States, StateValue, StoredStates
from pisa_ray.engine.user_code import told, user_error

#: Sums by tree node, ready to be sent: float32 arrays of equal length.
Nodes = list[tuple[Node, np.ndarray]]


@dataclass(frozen=True)
class Payload:
    """What a worker sends to the consensus.

    Attributes:
        messages: Added up as far as the shards allow, [width]; where messages are kept, each by itself.
        duals: The same of alpha_i pi_i' of all its shards, [p], in rounds with diagnostics.
    """

    messages: Nodes
    duals: Nodes

    @property
    def nbytes(self) -> int:
        """Size of all arrays."""
        return sum(array.nbytes for _, array in [*self.messages, *self.duals])


@dataclass(frozen=True)
class Home:
    """A shard's rows and its stream."""

    rows: Rows
    held_out: Rows
    stream: BatchStream


@dataclass
class HostedShard:
    """A shard's local state, and where it is at home its rows; elsewhere its state is kept until it can go home."""

    state: ShardState
    home: Home | None

    @property
    def at_home(self) -> Home:
        """Its rows.

        Raises:
            RuntimeError: They are not here.
        """
        if self.home is None:
            raise RuntimeError("the rows of a shard that is away from home were asked for")
        return self.home


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
class PastRound:
    """A round to step through again.

    Attributes:
        number: The round.
        sigma: Its penalty.
        reporters: The shards that took a step at its w, and whose messages counted, then or later.
    """

    number: int
    sigma: float
    reporters: set[int]


@dataclass(frozen=True)
class WorkerInfo:
    """Who a worker is.

    Attributes:
        pid: Its process.
        node: Its host's name.
        device: Where its model is.
        environment: See numerics.environment.
        bfloat16: Whether the device multiplies matrices faster in bfloat16 than in float32.
    """

    pid: int
    node: str
    device: str
    environment: Mapping[str, str | int] = field(default_factory=dict)
    bfloat16: bool = False


@dataclass(frozen=True)
class _Round:
    number: int
    sigma: float
    buffers: torch.Tensor
    memory: torch.Tensor
    diagnose: bool


class Worker:
    """Hosts shards: gradients at w, local updates, evaluation, saving.

    Args:
        job: What is trained.
        gpu: Whether the model and the states live on a GPU.
        process_is_ours: Whether the thread count may be set for good.

    Attributes:
        ahead: The next mini-batches by shard, each with its number in the stream.
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
        self._prepared: dict[int, Home] = {}
        self._tree, self._duals = self._trees()
        self._rows = job.rows(self.model.layout, len(self.model.buffers))
        compiled.use(job.compiled)
        self._drawn = 0  # the number of the mini-batch that was drawn last, in its shard's stream
        self._blocks: dict[tuple[str, int, int | None], Rows] = {}
        self.ahead: dict[int, tuple[int, torch.Tensor, torch.Tensor]] = {}

    def _trees(self) -> tuple[TreeSum, TreeSum]:
        m = len(self.job.shards)
        trees = TreeSum(m), TreeSum(m)
        trees[1].expect(self.job.present)
        return trees

    def change(self, job: Job) -> None:
        """Go on with another job: this one, but that shards have joined or left the problem."""
        self.job = job
        for i in job.removed:
            self.shards.pop(i, None)
            self._prepared.pop(i, None)
            self.ahead.pop(i, None)
        self._tree, self._duals = self._trees()

    def info(self) -> WorkerInfo:
        """Process, host and numeric environment."""
        device = self.model.parameters.device
        about = os.getpid(), socket.gethostname(), str(device), environment(device)
        return WorkerInfo(*about, multiplies_bfloat16(device))

    def prepare(self, shards: Iterable[int]) -> None:
        """Read the rows of shards that are expected here, in one pass over each source."""
        at_home = {i for i, shard in self.shards.items() if shard.home is not None}
        missing = [i for i in shards if i not in self._prepared and i not in at_home]
        founders = [i for i in missing if i < self.job.founders]
        for some in (founders, *([i] for i in missing if i >= self.job.founders)):
            if some:
                self._read(some, self.job.source(some[0]))

    def _read(self, missing: Sequence[int], source: Source) -> None:
        job, start = self.job, 0
        read = source.read(np.concatenate([rows for i in missing for rows in (job.shards[i], job.held_out[i])]))
        for i in missing:
            parts: list[Rows] = []
            for rows in (job.shards[i], job.held_out[i]):
                parts.append(read.take(np.arange(start, start + len(rows))))
                start += len(rows)
            stream = BatchStream(job.seed, i, len(job.shards[i]), job.batch_size)
            self._prepared[i] = Home(parts[0], parts[1], stream)

    def host(self, shards: Sequence[int], *origins: States | StoredStates, rows: bool = True) -> None:
        """Take in shards, at the states that one of the origins has of them, else at their initial state.

        Args:
            shards: Which.
            origins: Where states may be.
            rows: Whether they are at home here; if not, only their states are kept, and they cannot report.
        """
        if rows:
            self.prepare(shards)
        for i in shards:
            home = self._prepared.pop(i, None) if rows else None
            if home is None and rows:  # hosted already
                home = self.shards[i].home
            self.shards[i] = HostedShard(self._initial_state(), home)
        for origin in origins:
            if isinstance(origin, StoredStates):
                origin.load_into({i: self.shards[i].state for i in shards})
            else:
                for i in set(shards) & set(origin):
                    origin[i].load_into(self.shards[i].state)
        self._prepared.clear()  # what was expected and did not come

    def _initial_state(self) -> ShardState:
        state = self.job.method.initial_state(self.model.parameters, self.model.layout)
        if self.job.keeps_messages:
            state.said = self.model.parameters.new_zeros(self._rows.width)
        return state

    def snapshot(self, shards: Iterable[int]) -> States:
        """Hosted shards' states; the arrays may be views that the next step changes."""
        return {i: StateValue.of(self.shards[i].state) for i in shards}

    def hear(self, said: Mapping[int, np.ndarray]) -> None:
        """Take over what hosted shards have said last, [width] each; only read."""
        for i, row in said.items():
            self.shards[i].state.said.copy_(borrowed_tensor(row))

    def release(self, shards: Sequence[int]) -> States:
        """Let go of shards; returns their states."""
        for i in shards:
            self.ahead.pop(i, None)
        return {i: StateValue.of(self.shards.pop(i).state) for i in shards}

    def replay(self, shards: Sequence[int], rounds: Sequence[PastRound], published: Sequence[np.ndarray]) -> None:
        """Step some shards through past rounds, each at its own w; their messages were counted then."""
        for past, w in zip(rounds, published, strict=True):
            again = sorted(set(shards) & set(past.reporters))
            if again:
                this = self._begin(past.number, past.sigma, w, diagnose=False)
            for i in again:
                self._try_report(i, this, self._row(i))

    def _begin(self, number: int, sigma: float, published: np.ndarray, *, diagnose: bool) -> _Round:
        memory = self.model.load(published)
        self.model.module.train()
        return _Round(number, sigma, self.model.buffers.clone(), memory, diagnose)

    def step(
        self,
        round_: int,
        sigma: float,
        published: np.ndarray,
        diagnose: bool,
        shards: Sequence[int] | None = None,
        repeat: bool = False,
        absent: Collection[int] = (),
    ) -> tuple[Payload, WorkerReport]:
        """One iteration of hosted shards at the published w; of those, the round's reporters take a step.

        Args:
            round_: The round, from 1.
            sigma: Its penalty.
            published: w, the floating buffers and the method's memory, [p + b + e]; only read.
            diagnose: Whether reports carry diagnostics and payloads the duals.
            shards: Which; None: all that are hosted.
            repeat: Whether the absent shards' last messages are sent too, to a consensus that does not know them.
            absent: Shards of the job, here or elsewhere, that cannot report.

        Returns:
            What the consensus gets (views of buffers that the next step overwrites), and the report.
        """
        began, start = time.monotonic(), time.perf_counter()
        this = self._begin(round_, sigma, published, diagnose=diagnose)
        here = sorted(self.shards if shards is None else shards)
        reporters = self.job.reporters(round_, absent)
        reports, gradient_seconds = {}, 0.0
        self._tree.clear()
        self._tree.expect(reporters)
        for i in sorted(set(here) & set(reporters)):
            row = self._row(i)
            reports[i], seconds = self._try_report(i, this, row)
            gradient_seconds += seconds
            if not self.job.keeps_messages:
                self._tree.add((0, i), row, owned=True)
        if self.job.keeps_messages:
            payload = self._standing(here if repeat else reports, here, diagnose=diagnose)
        else:
            payload = Payload(_on_host(self._tree.nodes()), self._dual_sums(here, diagnose=diagnose))
        return payload, WorkerReport(reports, payload.nbytes, gradient_seconds, time.perf_counter() - start, began)

    def _row(self, i: int) -> torch.Tensor:
        """Where a shard's next message goes."""
        if self.job.keeps_messages:
            return self.shards[i].state.said
        return self._tree.buffer(self._rows.width, self.model.parameters)

    def repeat(self, shards: Sequence[int], diagnose: bool) -> Payload:
        """The last messages of hosted shards, for a consensus that does not know them; diagnose: and their duals."""
        return self._standing(shards, shards, diagnose=diagnose)

    def _standing(self, speakers: Iterable[int], here: Sequence[int], *, diagnose: bool) -> Payload:
        rows = [(i, self.shards[i].state.said) for i in speakers]
        messages = [((0, i), to_host(row)) for i, row in rows if self._rows.split(row).weight > 0]  # 0: nothing yet
        return Payload(messages, self._dual_sums(here, diagnose=diagnose))

    def _dual_sums(self, here: Sequence[int], *, diagnose: bool) -> Nodes:
        """Sums of alpha_i pi_i' over shards, whoever of them has reported."""
        tree = self._duals
        tree.clear()
        for i in here if diagnose and self.job.method.duals else ():
            state = self.shards[i].state
            assert isinstance(state, DualState)  # noqa: S101  (for the type checker)
            row = tree.buffer(len(state.dual), state.dual)
            tree.add((0, i), torch.mul(state.dual, self.job.alpha[i], out=row), owned=True)
        return _on_host(tree.nodes())

    def _try_report(self, i: int, this: _Round, row: torch.Tensor) -> tuple[ShardReport, float]:
        try:
            return self._report(i, this, row)
        except Exception as error:
            raise user_error(error, f"shard {i} in round {this.number}{self._row_groups(i)}") from error

    def _row_groups(self, i: int) -> str:
        """Where in the training file the rows of a shard's current mini-batch are, as far as there are places."""
        starts = self.job.source(i).starts()
        if len(starts) <= 2:
            return ""
        rows = self.job.shards[i][self.shards[i].at_home.stream.positions(self._drawn)]
        groups = [str(g) for g in np.unique(np.searchsorted(starts, rows, side="right") - 1)]
        shown = ", ".join(groups[:8]) + (f" and {len(groups) - 8} more" if len(groups) > 8 else "")
        return f" (rows from row group{'s' if len(groups) > 1 else ''} {shown})"

    def _report(self, i: int, this: _Round, row: torch.Tensor) -> tuple[ShardReport, float]:
        """A step of one shard and its message (to `row`); returns its report and the seconds in gradients."""
        job, model, state = self.job, self.model, self.shards[i].state
        gap = torch.empty_like(model.parameters) if this.diagnose else None
        message, steps = self._rows.split(row), job.steps(i)
        drawn = _Drawn(self, i, this, first=state.reports * steps)
        weighed = job.method.weighs and gap is None and not job.clips
        alpha = job.alpha[i] if weighed else 1.0
        task = Task(model.home, drawn.draw, this.sigma, model.layout, gap, this.memory, steps, alpha)
        momentum = self._clipped_step(i, task, message) if job.clips else job.method.step(state, task, message)
        state.version = this.number
        loss, samples, seconds = drawn.settle()
        dual = state.dual if isinstance(state, DualState) else None
        penalty = (
            job.method.penalties(model.layout).spread(message.M).clone()
            if gap is not None and dual is not None
            else message.M
        )
        self._rows.complete(row, job.alpha[i], drawn.last.left, weighed=weighed)
        if model.kept:  # of messages that stand by themselves, the consensus knows the first shard's
            speaks = job.keeps_messages or i == job.reporters(this.number)[0]
            keep_buffers(message, drawn.last.left[-model.kept :], speaks=speaks)
        diagnostics = None
        if gap is not None and dual is not None:
            local_gradient = drawn.last.gradient(model.home + gap)
            diagnostics = shard_diagnostics(gap, dual, penalty, local_gradient, drawn.last.loss, momentum)
        elif gap is not None:
            diagnostics = ShardDiagnostics(gap=float(gap.double().square().sum()))
        finite = math.isfinite(loss) and bool(torch.isfinite(message.N.sum()))
        return ShardReport(loss, samples, finite, diagnostics), seconds

    def _clipped_step(self, i: int, task: Task, message: Message) -> float | None:
        """A step whose change of the dual has a limit, the last entry of the consensus' memory; see Clip."""
        state = self.shards[i].state
        assert isinstance(state, DualState)  # noqa: S101  (for the type checker)
        assert task.memory is not None  # noqa: S101  (for the type checker)
        before, (memory, limit) = state.dual.clone(), task.memory.tensor_split([-1])
        momentum = self.job.method.step(state, replace(task, memory=memory), message)
        message.norms.zero_()
        penalty = self.job.method.penalties(task.layout).spread(message.M)
        message.norms[i] = clip_dual(state, before, task, message, penalty, float(limit))
        return momentum

    def slope(self, published: np.ndarray, shards: Collection[int], speakers: Sequence[int]) -> dict[Node, np.ndarray]:
        """Sums of alpha_i [ g_i | |g_i| | g_i^2 | 1 ] at a point, on the shards' first mini-batches.

        Args:
            published: The point and the floating buffers, [p + b + e].
            shards: Which of those that are hosted.
            speakers: All whose sum is wanted, here or elsewhere, ascending.

        Returns:
            As far as these shards allow, by tree node, [3 p + 1] each.
        """
        this = self._begin(1, 0.0, published, diagnose=False)
        tree = TreeSum(len(self.job.shards))
        tree.expect(speakers)
        for i in sorted(shards):
            try:
                g = self.draw(i, 0, 1, this.buffers).gradient(self.model.home)
            except Exception as error:
                raise user_error(error, f"shard {i} at the initial model{self._row_groups(i)}") from error
            row = torch.cat([g, g.abs(), g.square(), g.new_ones(1)])
            tree.add((0, i), row.mul_(self.job.alpha[i]), owned=True)
        return dict(_on_host(tree.nodes()))

    def draw(self, i: int, count: int, round_: int, buffers: torch.Tensor) -> ShardBatch:
        """Mini-batch number `count` (from 0) of a shard, in some round, from the buffers before it."""

        def begin() -> None:
            self.model.reset(round_ - 1)
            seed_all(self.job.seed, "forward", i, count)

        self._drawn = count
        ahead = self.ahead.pop(i, None)
        _, x, y = ahead if ahead is not None and ahead[0] == count else (count, *self.batch(i, count))
        probes = key(self.job.seed, "probes", i, count)
        return ShardBatch(self.model, self.job, x, y, buffers, begin, probes)

    def prefetch(self, shards: Iterable[int]) -> None:
        """Make hosted shards' next mini-batches meanwhile, unless they are all of the rows."""
        if self.job.batch_size is None:
            return
        for i in (i for i in set(shards) & set(self.shards) if self.shards[i].home is not None):
            count = self.shards[i].state.reports * self.job.steps(i)
            self.ahead[i] = (count, *self.batch(i, count))

    def batch(self, i: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mini-batch number `count` (from 0) of a shard, as the model sees it."""
        job, shard, device = self.job, self.shards[i].at_home, self.model.parameters.device
        positions = shard.stream.positions(count)
        x, y = shard.rows.batch(positions)
        if job.preprocess.transform is not None:
            seed_all(job.seed, "augment", i, count)
        x = job.preprocess(to_device(x, device), training=True)
        return job.distort(x, to_device(y, device), i, job.shards[i][positions], count)

    def evaluate(
        self, published: np.ndarray, split: str, blocks: Sequence[int], rows: int | None = None
    ) -> dict[int, Sums]:
        """Evaluate blocks of a split ("test" or "validation", a separate source), or of so many of its rows."""
        self.model.load(published)
        return {block: self._evaluate(self._block(split, block, rows), split, block) for block in blocks}

    def _evaluate(self, rows: Rows, split: str, number: int, distort: Distort | None = None) -> Sums:
        self.model.reset(0)
        seed_all(self.job.seed, f"evaluate {split}", number)
        with told(f"{split} {number}"):
            return evaluate_rows(self.model, self.job, rows, distort)

    def _block(self, split: str, block: int, rows: int | None) -> Rows:
        if (split, block, rows) not in self._blocks:
            source = self.job.test if split == "test" else self.job.validation
            assert source is not None  # noqa: S101  (for the type checker)
            if rows is not None:  # of such selections the last is kept, not all there ever were
                self._blocks = {key: kept for key, kept in self._blocks.items() if key[2] in (None, rows)}
            start, chosen = block * self.job.evaluation_rows, spaced(source.rows, rows)
            with told(f"{split} {block}"):
                self._blocks[split, block, rows] = source.read(chosen[start : start + self.job.evaluation_rows])
        return self._blocks[split, block, rows]

    def evaluate_shards(
        self, published: np.ndarray, shards: Sequence[int], *, held_out: bool, rows: int | None = None
    ) -> dict[int, Sums]:
        """Evaluate hosted shards' own rows, held-out or training ones, as distorted as they are there.

        Args:
            published: w and the floating buffers, [p + b + e].
            shards: Which.
            held_out: Which rows.
            rows: So many of each shard, evenly spaced; None: all.
        """
        self.model.load(published)
        job = self.job
        homes = {i: self.shards[i].at_home for i in shards}
        own = {i: home.held_out if held_out else home.rows for i, home in homes.items()}
        places = {i: spaced(len(some), rows) for i, some in own.items()}
        own = {i: some if rows is None else some.take(places[i]) for i, some in own.items()}

        def distort(x: torch.Tensor, y: torch.Tensor, positions: np.ndarray, i: int) -> tuple[torch.Tensor, ...]:
            return job.distort(x, y, i, (job.held_out if held_out else job.shards)[i][places[i][positions]])

        return {i: self._evaluate(own[i], "shard", i, partial(distort, i=i)) for i in shards}

    def export(self, published: np.ndarray, rounds: int, path: str) -> str:
        """Write the plain model at a published w as safetensors; returns its weights_sha256."""
        self.model.load(published)
        self.model.reset(rounds)
        return self.model.save(Path(path))


def spaced(number: int, rows: int | None) -> np.ndarray:
    """So many of a number of rows, evenly spaced, as files may be sorted; None, or more than there are: all."""
    some = number if rows is None else min(rows, number)
    return np.arange(some) * number // max(some, 1)


def _on_host(nodes: dict[Node, torch.Tensor]) -> Nodes:
    return [(node, to_host(row)) for node, row in nodes.items()]


class _Drawn:
    """The mini-batches of one report; only the last is kept.

    Args:
        worker: Who draws them.
        shard: Of which shard.
        this: The round.
        first: The number of the first in the shard's stream.
    """

    def __init__(self, worker: Worker, shard: int, this: _Round, first: int) -> None:
        self._worker, self._shard, self._this, self._next = worker, shard, this, first
        self._number, self._samples, self._loss, self._seconds = 0, 0, 0.0, 0.0
        self._last: ShardBatch | None = None

    def draw(self) -> ShardBatch:
        """The next one; it begins with the buffers that the one before left."""
        buffers = self._this.buffers if self._last is None else self._last.left
        self._count()
        self._last = self._worker.draw(self._shard, self._next, self._this.number, buffers)
        self._next += 1
        return self._last

    @property
    def last(self) -> ShardBatch:
        """The last one."""
        assert self._last is not None  # noqa: S101  (every method draws)
        return self._last

    def settle(self) -> tuple[float, int, float]:
        """The mean loss, the rows and the seconds of all; asked for once, when the step is done."""
        self._count()
        return self._loss / self._number, self._samples, self._seconds

    def _count(self) -> None:
        if self._last is not None:
            self._number += 1
            self._loss += self._last.loss
            self._samples += len(self._last)
            self._seconds += self._last.seconds
