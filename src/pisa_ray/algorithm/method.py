"""What every method is made of: a step on one shard, and an update of w from the sum of the messages.

PISA and its kin (admm.py) and the baselines (local_steps.py, synchronous.py) differ in these two only; shards, streams,
sums, workers, checkpoints and recovery are the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self, TypeAlias

from annotated_types import Ge, Le

from pisa_ray.algorithm.auto import Auto
from pisa_ray.algorithm.curvature import Curvature
from pisa_ray.algorithm.layout import Layout
from pisa_ray.algorithm.message import Message, Penalties
from pisa_ray.algorithm.state import ShardState
from pisa_ray.later import torch
from pisa_ray.options import Kind

if TYPE_CHECKING:
    from pisa_ray.algorithm.methods.admm import AdmmRule

#: What a method adds to the loss: (what enters the model's last linear layer, which rows of the batch) -> a scalar.
Term: TypeAlias = "Callable[[torch.Tensor, slice], torch.Tensor]"

MemoryOf = Literal["steps", "founders"]


@dataclass(frozen=True)
class Ask:
    """Something that a method asks of a mini-batch.

    Attributes:
        ask: Asks for it at a point.
        wrong: What it means where that raises, as a sentence begins.
        remedy: What to do then.
    """

    ask: Callable[[Batch, torch.Tensor], object]
    wrong: str
    remedy: str


class Batch(Protocol):
    """A mini-batch B_i of a shard's data, and the mean loss on it as a function of the parameters."""

    def gradient(self, point: torch.Tensor, term: Term | None = None) -> torch.Tensor:
        """Grad F_i(point; B_i), [p]; may be overwritten, and is by the next gradient."""

    def curvature(self, point: torch.Tensor) -> Curvature:
        """Second-order information at a point, [p]; to be used before anything else is asked for."""

    def features(self, point: torch.Tensor) -> torch.Tensor:
        """What enters the model's last linear layer, [rows, features], without gradients, in evaluation mode."""


@dataclass(frozen=True)
class Task:
    """One shard's part of one iteration.

    Attributes:
        w: Consensus point of this iteration, [p]; only read.
        draw: Draws the shard's next mini-batch.
        sigma: Penalty of this iteration (after growth).
        layout: Where the parameters lie in w.
        gap: Where w_i - w goes, [p], in iterations with diagnostics; else None.
        memory: What the consensus carries beside w, [e], on the CPU; only read.
        steps: Mini-batches of this report, as the method's `gradients` says.
        alpha: What a method that weighs multiplies its message by.
    """

    w: torch.Tensor
    draw: Callable[[], Batch]
    sigma: float
    layout: Layout
    gap: torch.Tensor | None = None
    memory: torch.Tensor | None = None
    steps: int = 1
    alpha: float = 1.0


@dataclass(frozen=True)
class Update:
    """The consensus of one iteration.

    Attributes:
        total: Sum of all messages, or a robust consensus' means of them (then N and M are [p], the weight is 1); only
            read, as it may lie in memory that is not ours.
        w: The iteration's consensus point, [p]; only read.
        sigma: Its penalty.
        layout: Where the parameters lie in w.
        out: Where the next w goes, [p].
    """

    total: Message
    w: torch.Tensor
    sigma: float
    layout: Layout
    out: torch.Tensor


class Method(Kind, ABC, family="algorithm", homes=("pisa_ray.algorithm.methods",)):
    """AdmmRule, a local state, a step on it, and the consensus.

    Attributes:
        vectors: Vectors [p] in a message, at most: 1, or 2 where M is one too.
        weighs: Whether `step` multiplies the message by task.alpha, as it writes it; else that is done after it.
        duals: Whether shards have a dual pi_i.
        proposes: Whether N_i / M_i is what a shard proposes, and a mean of them with weights alpha_i M_i all that the
            sum is for; then a robust mean may take its place.
        remedy: What usually helps when numbers overflow.
        memory_of: Of what the consensus remembers something beside w: of the "steps" that w has taken, such as their
            moments, which mean the same whoever the shards are; or of the "founders", such as a mean over the shards
            that there were at first, so that none can join or leave. None: of nothing; or nobody says, and then none
            can either.
    """

    text: ClassVar[str] = "a method such as SISA()"
    usual: ClassVar[str] = "sisa_d"

    weighs: ClassVar[bool] = False
    duals: ClassVar[bool] = False
    proposes: ClassVar[bool] = True
    remedy: ClassVar[str] = "a smaller first step"
    memory_of: ClassVar[MemoryOf | None] = None

    @property
    def vectors(self) -> int:
        """See above."""
        return 1

    @property
    def remembers(self) -> bool:
        """Whether the last message of a shard that does not report stays in the sum; else it is over the reporters."""
        return False

    @property
    @abstractmethod
    def sigma(self) -> float | Auto:
        """The first penalty, sigma^0; for methods without one, the inverse of the learning rate."""

    def penalties(self, layout: Layout) -> Penalties:
        """Where penalties are in a message's M: one number, or a vector where messages have two."""
        return Penalties.number(layout.size) if self.vectors == 1 else Penalties.vector(layout.size)

    def shrinkage(self, w: torch.Tensor, layout: Layout) -> torch.Tensor:
        """The gradient of the regulariser, lambda w, [p]; 0 where there is none."""
        return torch.zeros_like(w)

    def gradients(self, rows: int, batch: int) -> int:
        """Mini-batches of one report.

        Args:
            rows: n_i, rows of the shard.
            batch: Rows of a mini-batch, at most n_i.
        """
        return 1

    def first_consensus(self, w: torch.Tensor, layout: Layout) -> torch.Tensor:
        """w^1 from w^init, [p]."""
        return w.clone()

    def initial_memory(self, layout: Layout) -> torch.Tensor:
        """What the consensus carries from round to round beside w, [e], as float32."""
        return torch.empty(0)

    def initial_state(self, w: torch.Tensor, layout: Layout) -> ShardState:
        """A shard's state before its first report, of the type and device of w; a count of reports at least."""
        return ShardState()

    @abstractmethod
    def step(self, shard: ShardState, task: Task, message: Message) -> float | None:
        """Update `shard` in place and write N_i and M_i to `message`.

        Returns:
            The momentum 1 - theta, mean of rho q / (sigma + rho q), if diagnostics are on and there is one; else None.
        """

    @abstractmethod
    def update(self, update: Update, memory: torch.Tensor) -> None:
        """Make the next w from the sum of the messages, and bring `memory` [e] up to date in place."""

    @property
    def is_complete(self) -> bool:
        """Whether all its numbers are set, so that the automatic start has nothing to find."""
        return True

    def rules(self) -> Mapping[str, AdmmRule]:
        """The rules whose numbers are set here, by the path that leads to them; see Admm. Baselines have none."""
        return {}

    def moved(self, layout: Layout) -> dict[str, list[str]]:
        """Which parameters each of several rules moves, by path; nothing where there is one rule."""
        return {}

    def with_numbers(self, found: Mapping[str, Any]) -> Self:
        """The same with other numbers, by path and name.

        Raises:
            KeyError: There is none of that name.
        """
        if found:
            raise KeyError(min(found))
        return self

    def asks(self) -> Sequence[Ask]:
        """What it asks of a mini-batch beside gradients: it is tried before a run, as a model may not give it."""
        return ()

    def check(self, layout: Layout) -> None:
        """Whether it can train such parameters.

        Raises:
            ValueError: It cannot.
        """


#: How many local steps a report may have; more would be a round without an end.
Steps = Annotated[int, Ge(1), Le(10**6)]


def memory_of(method: Method) -> MemoryOf | None:
    """What a method says that its consensus remembers; what a class inherits says nothing of a memory of its own."""
    for kind in type(method).__mro__:
        if "memory_of" in vars(kind):
            said: MemoryOf | None = vars(kind)["memory_of"]
            return said
        if "initial_memory" in vars(kind):
            return None
    return None
