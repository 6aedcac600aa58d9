"""SyncOptimizer: plain data parallel training, one step of any torch optimizer on the mean gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch

from pisa_ray.algorithm.layout import Layout
from pisa_ray.algorithm.message import Message
from pisa_ray.algorithm.method import Task, Update
from pisa_ray.algorithm.optimizers import Optimizer, parameters, set_gradients, state_entries
from pisa_ray.algorithm.state import ShardState


@dataclass(frozen=True, kw_only=True)
class SyncOptimizer:
    """Synchronous SGD, Adam, ...: w <- optimizer(w, sum_i alpha_i g_i / sum_i alpha_i) over the shards that report.

    What every data parallel trainer does with one batch per worker and round. The optimizer's state lives with the
    consensus. A sigma schedule acts on the learning rate: it is lr * sigma^0 / sigma.

    Attributes:
        lr: Learning rate, > 0.
        optimizer: A class of torch.optim or its name; not LBFGS or SparseAdam.
        options: Its other keyword arguments, such as {"momentum": 0.9}.
    """

    lr: float = 0.003
    optimizer: str | type[torch.optim.Optimizer] = "adam"
    options: Mapping[str, Any] = field(default_factory=dict)

    vectors: ClassVar[int] = 1
    duals: ClassVar[bool] = False
    remembers: ClassVar[bool] = False
    remedy: ClassVar[str] = "lowering algorithm.lr"
    lam: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        self._made  # noqa: B018  (so that wrong options are refused now)

    @cached_property
    def _made(self) -> Optimizer:
        return Optimizer.of(self.optimizer, self.lr, self.options)

    @property
    def sigma(self) -> float:
        """1 / lr."""
        return 1 / self.lr

    def gradients(self, rows: int, batch: int) -> int:
        """One."""
        return 1

    def first_consensus(self, w: torch.Tensor) -> torch.Tensor:
        """w^init."""
        return w.clone()

    def initial_memory(self, layout: Layout) -> torch.Tensor:
        """Whether there was a step, then the optimizer's state, [e]."""
        entries = state_entries(self._made, layout)
        return torch.zeros(1 + (entries[-1].part.stop if entries else 0))

    def initial_state(self, w: torch.Tensor, layout: Layout) -> ShardState:
        """A count of reports only."""
        return ShardState()

    def step(self, shard: ShardState, task: Task, message: Message) -> float | None:
        """N_i = g_i, M_i = 1."""
        shard.reports += 1
        message.N.copy_(task.draw().gradient(task.w))
        message.M.fill_(1)
        if task.gap is not None:
            task.gap.zero_()
        return None

    def update(self, update: Update, memory: torch.Tensor) -> None:
        """One step of the optimizer on the mean gradient."""
        layout, kept = update.layout, memory[1:]
        entries = state_entries(self._made, layout)
        on = parameters(update.out.copy_(update.w), layout)
        optimizer = self._made.on(on, self.lr * (self.sigma / update.sigma))
        if memory[0]:
            for entry in entries:
                optimizer.state[on[entry.parameter]][entry.name] = entry.read(kept)
        set_gradients(on, update.total.N.div_(update.total.weight), layout)
        optimizer.step()
        for entry in entries:
            entry.write(kept, optimizer.state[on[entry.parameter]][entry.name])
        memory[0] = 1
