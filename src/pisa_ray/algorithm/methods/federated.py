"""Averaging methods: every shard takes several local steps from w, and the consensus averages their ends.

    start      y = w
    K times    y <- y - lr (grad F_i(y; B) + correction)       or a step of another optimizer, with a fresh state
    message    Delta_i = y - w
    consensus  w <- w + sum_i alpha_i Delta_i / sum_i alpha_i   over the shards that report

The methods differ in the correction, in the message, and in the use that the consensus makes of the mean Delta. A sigma
schedule acts on the local learning rate, which is lr * sigma^0 / sigma.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, TypeAlias

from annotated_types import Ge, Gt, Le

from pisa_ray.algorithm.layout import Layout
from pisa_ray.algorithm.message import Message
from pisa_ray.algorithm.method import Ask, Batch, MemoryOf, Steps, Task, Term, Update
from pisa_ray.algorithm.methods.baseline import Baseline
from pisa_ray.algorithm.optimizers import Optimizer, OptimizerName, parameters, set_gradients
from pisa_ray.algorithm.rules import square_root
from pisa_ray.algorithm.state import ShardState
from pisa_ray.errors import ConfigError
from pisa_ray.fields import Decay, NotNegative, Positive
from pisa_ray.later import torch

#: Changes a gradient in place, given the gradient and the point y it was taken at.
Correction: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], object]"


@dataclass(frozen=True, kw_only=True)
class FedAvg(Baseline):
    """FedAvg (McMahan et al., "Communication-efficient learning of deep networks from decentralized data", 2017).

    Attributes:
        momentum: The momentum of the local steps, fresh in every round.
        steps: K, the local steps of a round.
        epochs: The passes over the rows of the shard in a round, ceil(epochs n_i / batch) steps; None: there are
            `steps`.
    """

    kind: ClassVar[str] = "fedavg"

    lr: Annotated[float, Ge(1e-30), Le(1e30)] = 0.01
    optimizer: OptimizerName = "sgd"
    momentum: Decay = 0.0
    steps: Steps = 10
    epochs: Annotated[float, Gt(0), Le(1e6)] | None = None

    @cached_property
    def _made(self) -> Optimizer:
        if self.momentum and "momentum" in self.options:
            raise ConfigError("momentum is given twice, as a setting and in options: leave it out in options.")
        options = {"momentum": self.momentum} if self.momentum else {}
        return Optimizer.of(self.optimizer, self.lr, {**options, **self.options})

    def gradients(self, rows: int, batch: int) -> int:
        """Return K, the number of local steps."""
        return self.steps if self.epochs is None else max(1, math.ceil(self.epochs * rows / batch))

    def step(self, shard: ShardState, task: Task, message: Message) -> float | None:
        """Take the local steps; N_i = Delta_i, M_i = 1."""
        y = task.w.clone()
        on = parameters(y, task.layout)
        optimizer = self._made.on(on, self._rate(task.sigma))
        correct = self.correction(shard, task)
        for _ in range(task.steps):
            batch = task.draw()
            g = batch.gradient(y, self.term(shard, task, batch))
            correct(g, y)
            set_gradients(on, g, task.layout)
            optimizer.step()
        torch.sub(y, task.w, out=message.N)
        message.M.fill_(1)
        shard.reports += 1
        if task.gap is not None:
            task.gap.copy_(message.N)
        return None

    def update(self, update: Update, memory: torch.Tensor) -> None:
        """Add the mean Delta to w."""
        torch.add(update.w, self._mean(update), out=update.out)

    def check(self, layout: Layout) -> None:
        """Refuse parameters that the local optimizer does not take.

        Raises:
            ValueError: If there are such parameters.
        """
        self._made.on(parameters(torch.zeros(layout.size), layout), self.lr)

    def correction(self, shard: ShardState, task: Task) -> Correction:
        """Return a change of each gradient before the optimizer's step; by default nothing changes."""
        return lambda g, y: None

    def term(self, shard: ShardState, task: Task, batch: Batch) -> Term | None:
        """Return a term that is added to the loss of a local step; by default there is none."""
        return None


@dataclass(frozen=True, kw_only=True)
class FedProx(FedAvg):
    """FedProx (Li et al., "Federated optimization in heterogeneous networks", 2020), on F_i + (mu/2) ||y - w||^2.

    Attributes:
        mu: The weight of the proximal term; 0 is FedAvg.
    """

    kind: ClassVar[str] = "fedprox"

    mu: NotNegative = 0.01

    def correction(self, shard: ShardState, task: Task) -> Correction:
        """See FedAvg."""
        return lambda g, y: g.add_((y - task.w).mul_(self.mu))


@dataclass(frozen=True, kw_only=True)
class _Weighing(FedAvg):
    """A method that must know the weight of each gradient in Delta_i, so that its local steps are those of SGD."""

    def __post_init__(self) -> None:
        super().__post_init__()
        odd = {"momentum", "nesterov", "dampening"} & {name for name, value in self.options.items() if value}
        if self._made.kind is not torch.optim.SGD or odd:
            raise ConfigError(
                f"{type(self).__name__} takes local steps of SGD, with its setting momentum or without: it has to know "
                f"how much of each gradient is in the sum; leave out {' and '.join(sorted(odd)) or 'optimizer'}."
            )

    def _weight(self, steps: int) -> float:
        """Return ||a_i||_1, the sum of the weights of the gradients in K steps; it is K without momentum."""
        total = velocity = 0.0
        for _ in range(steps):
            velocity = self.momentum * velocity + 1
            total += velocity
        return total


@dataclass(frozen=True, kw_only=True)
class FedNova(_Weighing):
    """FedNova (Wang et al., "Tackling the objective inconsistency problem in heterogeneous optimization", 2020).

    w <- w + (sum_i alpha_i a_i) (sum_i alpha_i Delta_i / a_i), a_i = ||a_i||_1 the weight of the shard's local steps.
    Equal to FedAvg where all shards take as many steps.
    """

    kind: ClassVar[str] = "fednova"
    proposes: ClassVar[bool] = False

    def step(self, shard: ShardState, task: Task, message: Message) -> float | None:
        """Take the local steps; N_i = Delta_i / a_i, M_i = a_i."""
        super().step(shard, task, message)
        weight = self._weight(task.steps)
        message.N.div_(weight)
        message.M.fill_(weight)
        return None

    def update(self, update: Update, memory: torch.Tensor) -> None:
        """Take the mean step the mean number of times."""
        scale = update.total.M / update.total.weight
        torch.add(update.w, self._mean(update).mul_(scale), out=update.out)


@dataclass(kw_only=True)
class VariateState(ShardState):
    """The state of a shard with c_i, the control variate, [p]."""

    variate: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Scaffold(_Weighing):
    """SCAFFOLD (Karimireddy et al., "Stochastic controlled averaging for federated learning", 2020), option II.

    Local steps use g + c - c_i; then c_i <- c_i - c - Delta_i / (lr a_i), w <- w + server_lr (mean Delta_i over the
    reporters) and c <- c + sum_reporters alpha_i (change of c_i), so that always c = sum_i alpha_i c_i.
    With momentum, which the paper leaves out, a_i is FedNova's weight of the steps instead of K.

    Attributes:
        server_lr: The step length of the consensus along the mean Delta.
    """

    kind: ClassVar[str] = "scaffold"

    server_lr: Positive = 1.0

    vectors: ClassVar[int] = 2
    proposes: ClassVar[bool] = False
    memory_of: ClassVar[MemoryOf | None] = "founders"

    def initial_memory(self, layout: Layout) -> torch.Tensor:
        """Return the mean variate, which is 0 at first."""
        return torch.zeros(layout.size)

    def initial_state(self, w: torch.Tensor, layout: Layout) -> VariateState:
        """Return the shard's variate, which is 0 at first."""
        return VariateState(variate=torch.zeros_like(w))

    def step(self, shard: ShardState, task: Task, message: Message) -> float | None:
        """Take the local steps; N_i = Delta_i, M_i is the change of c_i."""
        assert isinstance(shard, VariateState)  # noqa: S101  (for the type checker)
        super().step(shard, task, message)
        change = torch.div(message.N, -self._rate(task.sigma) * self._weight(task.steps), out=message.M)
        change.sub_(self._mean_variate(shard, task))
        shard.variate.add_(change)
        return None

    def correction(self, shard: ShardState, task: Task) -> Correction:
        """See FedAvg."""
        assert isinstance(shard, VariateState)  # noqa: S101  (for the type checker)
        pull = self._mean_variate(shard, task) - shard.variate
        return lambda g, y: g.add_(pull)

    def _mean_variate(self, shard: VariateState, task: Task) -> torch.Tensor:
        """Return c on the shard's device."""
        assert task.memory is not None  # noqa: S101  (for the type checker)
        return task.memory.to(shard.variate.device)

    def update(self, update: Update, memory: torch.Tensor) -> None:
        """Step along the mean Delta; sum the changes of the variates instead of averaging them over the reporters."""
        memory.add_(update.total.M)
        torch.add(update.w, self._mean(update).mul_(self.server_lr), out=update.out)


@dataclass(kw_only=True)
class PreviousState(ShardState):
    """The state of a shard with the end y of its last local steps, [p]."""

    previous: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class MOON(FedAvg):
    """MOON (Li, He, Song, "Model-contrastive federated learning", 2021).

    It adds mu times -log( e^{cos(z, z_w)/T} / (e^{cos(z, z_w)/T} + e^{cos(z, z_previous)/T}) ) to the loss. z is the
    input of the model's last linear layer (the paper adds a projection head to the model; bring your own), and z_w and
    z_previous are the same at w and at the shard's previous y. The first report has no previous y and so no such term.
    A step takes three forward passes instead of one; those for z_w and z_previous are in evaluation mode, with the
    BatchNorm statistics of the local step.

    Attributes:
        mu: The weight of the contrastive term.
        temperature: T, the temperature of the contrastive term.
    """

    kind: ClassVar[str] = "moon"

    mu: NotNegative = 1.0
    temperature: Positive = 0.5

    def asks(self) -> Sequence[Ask]:
        """See Method."""
        wrong = f"algorithm {type(self).__name__} cannot be applied to the model"
        return [Ask(lambda batch, w: batch.features(w), wrong, "use another algorithm")]

    def initial_state(self, w: torch.Tensor, layout: Layout) -> PreviousState:
        """Return a state without a previous y."""
        return PreviousState(previous=torch.zeros_like(w))

    def step(self, shard: ShardState, task: Task, message: Message) -> float | None:
        """Take the local steps of FedAvg, and keep y."""
        assert isinstance(shard, PreviousState)  # noqa: S101  (for the type checker)
        super().step(shard, task, message)
        torch.add(task.w, message.N, out=shard.previous)
        return None

    def term(self, shard: ShardState, task: Task, batch: Batch) -> Term | None:
        """See FedAvg."""
        assert isinstance(shard, PreviousState)  # noqa: S101  (for the type checker)
        if shard.reports == 0 or self.mu == 0:
            return None
        return self._contrast(batch.features(task.w), batch.features(shard.previous))

    def _contrast(self, towards: torch.Tensor, away: torch.Tensor) -> Term:
        def term(z: torch.Tensor, rows: slice) -> torch.Tensor:
            similar = [torch.cosine_similarity(z.float(), other[rows].float(), dim=-1) for other in (towards, away)]
            logits = torch.stack(similar, dim=-1) / self.temperature
            return -self.mu * torch.log_softmax(logits, dim=-1)[..., 0].mean()

        return term


@dataclass(frozen=True, kw_only=True)
class FedAdam(FedAvg):
    """FedAdam (Reddi et al., "Adaptive federated optimization", 2021), Adam's step along the mean Delta.

    m <- beta1 m + (1 - beta1) Delta;  v <- beta2 v + (1 - beta2) Delta^2;  w <- w + server_lr m / (sqrt(v) + tau), from
    m = 0 and v = tau^2, without bias correction, as in the paper.

    Attributes:
        server_lr: The step length of the consensus along the mean Delta.
        beta1: The decay of the first moment, m.
        beta2: The decay of the second moment, v.
        tau: The degree of adaptivity, added to the root of the second moment.
    """

    kind: ClassVar[str] = "fedadam"

    server_lr: Positive = 0.01
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    tau: Annotated[float, Gt(0), Le(1e15)] = 1e-3

    memory_of: ClassVar[MemoryOf | None] = "steps"

    def initial_memory(self, layout: Layout) -> torch.Tensor:
        """Return both moments, m and v, [2p]."""
        return torch.cat([torch.zeros(layout.size), torch.full((layout.size,), self.tau**2)])

    def update(self, update: Update, memory: torch.Tensor) -> None:
        """Take the step of the consensus."""
        delta = self._mean(update)
        m, v = memory.chunk(2)
        m.mul_(self.beta1).add_(delta * (1 - self.beta1))
        self._second_moment(v, delta * delta)
        move = (m * self.server_lr).div_(square_root(v).add_(self.tau))
        torch.add(update.w, move, out=update.out)

    def _second_moment(self, v: torch.Tensor, square: torch.Tensor) -> None:
        v.mul_(self.beta2).add_(square.mul_(1 - self.beta2))


@dataclass(frozen=True, kw_only=True)
class FedYogi(FedAdam):
    """FedYogi (Reddi et al. 2021), which is FedAdam with v <- v - (1 - beta2) Delta^2 sign(v - Delta^2)."""

    kind: ClassVar[str] = "fedyogi"

    def _second_moment(self, v: torch.Tensor, square: torch.Tensor) -> None:
        v.sub_(torch.sign(v - square).mul_(square).mul_(1 - self.beta2))


@dataclass(frozen=True, kw_only=True)
class MIFA(FedAvg):
    """MIFA (Gu et al., "Fast federated learning in the presence of arbitrary device unavailability", 2021).

    G_i = -Delta_i / lr is the sum of a shard's local gradients, and w <- w - lr sum_i alpha_i G_i goes over all shards,
    with the last G_i of the absent ones. It equals FedAvg where all shards report.
    """

    kind: ClassVar[str] = "mifa"

    @property
    def remembers(self) -> bool:
        """True: the last messages of absent shards stay in the sum."""
        return True

    def step(self, shard: ShardState, task: Task, message: Message) -> float | None:
        """Take the local steps; N_i = -G_i, M_i = 1."""
        super().step(shard, task, message)
        message.N.div_(self._rate(task.sigma))
        return None

    def update(self, update: Update, memory: torch.Tensor) -> None:
        """Step against the mean G."""
        torch.add(update.w, self._mean(update).mul_(self._rate(update.sigma)), out=update.out)
