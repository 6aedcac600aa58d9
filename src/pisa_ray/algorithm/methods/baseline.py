"""The base of the baselines: an optimizer of torch.optim, a learning rate, and no dual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from pisa_ray.algorithm.method import Method, Update
from pisa_ray.algorithm.optimizers import Optimizer, OptimizerName
from pisa_ray.later import torch


@dataclass(frozen=True, kw_only=True)
class Baseline(Method):
    """A method without a penalty. A sigma schedule acts on the learning rate, which is lr * sigma^0 / sigma.

    Attributes:
        lr: The learning rate (of the local steps if there are any), which a sigma schedule divides by sigma / sigma^0.
        optimizer: A class of torch.optim or its name, in upper or lower case, except LBFGS and SparseAdam. For local
            steps it has a fresh state in every round.
        options: The other keyword arguments of the optimizer, such as its weight_decay, or for SyncOptimizer its
            momentum.
    """

    remedy: ClassVar[str] = "lowering algorithm.lr"

    lr: Annotated[float, Ge(1e-30), Le(1e30)]  # so that float32 holds lr and 1 / lr
    optimizer: OptimizerName
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        default: Any = next(one.default for one in fields(self) if one.name == "optimizer")
        if self.options or self.optimizer != default:
            self._made  # noqa: B018  (so that wrong options are refused now)

    @cached_property
    def _made(self) -> Optimizer:
        return Optimizer.of(self.optimizer, self.lr, self.options)

    @property
    def sigma(self) -> float:
        """1 / lr."""
        return 1 / self.lr

    def _rate(self, sigma: float) -> float:
        """Return the learning rate of a round with this penalty."""
        return self.lr * (self.sigma / sigma)

    def _mean(self, update: Update) -> torch.Tensor:
        """Return the mean of N over the shards in the sum, [p], a new vector."""
        return update.total.N / update.total.weight
