"""What the baselines share: an optimizer of torch.optim, a learning rate, and no dual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch

from pisa_ray import checks
from pisa_ray.algorithm.layout import Layout
from pisa_ray.algorithm.message import Penalties
from pisa_ray.algorithm.method import MemoryOf, Update
from pisa_ray.algorithm.optimizers import OPTIMIZER, Optimizer
from pisa_ray.algorithm.state import ShardState


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A method without a penalty. A sigma schedule acts on the learning rate: it is lr * sigma^0 / sigma.

    Attributes:
        lr: Learning rate, from 1e-30 to 1e30.
        optimizer: A class of torch.optim or its name; not LBFGS or SparseAdam.
        options: Its other keyword arguments, such as {"weight_decay": 1e-4}.
    """

    lr: float
    optimizer: str | type[torch.optim.Optimizer]
    options: Mapping[str, Any] = field(default_factory=dict)

    vectors: ClassVar[int] = 1
    weighs: ClassVar[bool] = False
    duals: ClassVar[bool] = False
    proposes: ClassVar[bool] = True
    remedy: ClassVar[str] = "lowering algorithm.lr"
    memory_of: ClassVar[MemoryOf | None] = None

    def __post_init__(self) -> None:
        checks.settle(
            self,
            lr=checks.number(least=1e-30, most=1e30),  # what float32 holds, and 1 / lr too
            optimizer=OPTIMIZER,
            options=checks.mapping(checks.within, "a dictionary of the optimizer's other arguments"),
        )
        self._made  # noqa: B018  (so that wrong options are refused now)

    @cached_property
    def _made(self) -> Optimizer:
        return Optimizer.of(self.optimizer, self.lr, self.options)

    @property
    def remembers(self) -> bool:
        """No: the mean is over those who report."""
        return False

    @property
    def sigma(self) -> float:
        """1 / lr."""
        return 1 / self.lr

    def _rate(self, sigma: float) -> float:
        """The learning rate of an iteration with that penalty."""
        return self.lr * (self.sigma / sigma)

    def penalties(self, layout: Layout) -> Penalties:
        """One number, or a vector where messages have two."""
        return Penalties.number(layout.size) if self.vectors == 1 else Penalties.vector(layout.size)

    def shrinkage(self, w: torch.Tensor, layout: Layout) -> torch.Tensor:
        """0: weight decay is the optimizer's."""
        return torch.zeros_like(w)

    def first_consensus(self, w: torch.Tensor, layout: Layout) -> torch.Tensor:
        """w^init."""
        return w.clone()

    def initial_memory(self, layout: Layout) -> torch.Tensor:
        """Nothing."""
        return torch.empty(0)

    def initial_state(self, w: torch.Tensor, layout: Layout) -> ShardState:
        """A count of reports only."""
        return ShardState()

    def _mean(self, update: Update) -> torch.Tensor:
        """The mean of N over the shards in the sum, [p], a new vector."""
        return update.total.N / update.total.weight
