"""Plain data parallel training, one step of any torch optimizer on the mean gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le

from pisa_ray.algorithm.layout import Layout
from pisa_ray.algorithm.message import Message
from pisa_ray.algorithm.method import MemoryOf, Task, Update
from pisa_ray.algorithm.methods.baseline import Baseline
from pisa_ray.algorithm.optimizers import OptimizerName, kept_names, parameters, set_gradients, state_entries
from pisa_ray.algorithm.state import ShardState
from pisa_ray.later import torch


@dataclass(frozen=True, kw_only=True)
class SyncOptimizer(Baseline):
    """Synchronous SGD, Adam and others: w <- optimizer(w, sum_i alpha_i g_i / sum_i alpha_i) over the reporters.

    Every data parallel trainer does this with one batch per worker and round. The optimizer's state is the memory of
    the consensus. A parameter that no loss depends on has the gradient 0 instead of none: weight decay acts on it.

    Attributes:
        remember: Whether the mean is over all shards, with the last gradients of absent ones (as in MIFA, without local
            steps), and not over the reporters only. If all report, it changes nothing.
    """

    kind: ClassVar[str] = "sync"

    lr: Annotated[float, Ge(1e-30), Le(1e30)] = 0.003
    optimizer: OptimizerName = "adam"
    remember: bool = False

    memory_of: ClassVar[MemoryOf | None] = "steps"

    @property
    def remembers(self) -> bool:
        """Whether the last messages of absent shards stay in the sum."""
        return self.remember

    def initial_memory(self, layout: Layout) -> torch.Tensor:
        """Return a flag that says whether there was a step, then the optimizer's state, [e]."""
        entries = state_entries(self._made, layout)
        return torch.zeros(1 + (entries[-1].part.stop if entries else 0))

    def step(self, shard: ShardState, task: Task, message: Message) -> float | None:
        """Take one gradient; N_i = g_i, M_i = 1."""
        message.N.copy_(task.draw().gradient(task.w))
        message.M.fill_(1)
        shard.reports += 1
        if task.gap is not None:
            task.gap.zero_()
        return None

    def update(self, update: Update, memory: torch.Tensor) -> None:
        """Take one step of the optimizer on the mean gradient.

        Raises:
            ValueError: If the optimizer keeps more than in its first step.
        """
        layout, kept = update.layout, memory[1:]
        entries = state_entries(self._made, layout)
        on = parameters(update.out.copy_(update.w), layout)
        optimizer = self._made.on(on, self._rate(update.sigma))
        if memory[0]:
            for entry in entries:
                optimizer.state[on[entry.parameter]][entry.name] = entry.read(kept)
        set_gradients(on, self._mean(update), layout)
        optimizer.step()
        if kept_names(optimizer, on) != [(entry.parameter, entry.name) for entry in entries]:
            raise ValueError(
                f"{self._made.kind.__name__} keeps more after later steps than after its first: use one of torch.optim"
            )
        for entry in entries:
            entry.write(kept, optimizer.state[on[entry.parameter]][entry.name])
        memory[0] = 1
