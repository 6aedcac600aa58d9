"""The interface of methods: a step on one shard, and an update of w from the sum of the messages.

Methods with duals (methods/admm.py) and the baselines (methods/federated.py, methods/synchronous.py) differ in these
two only; shards, streams, sums, workers, checkpoints and recovery are the same for all.
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
from pisa_ray.kinds import Kind
from pisa_ray.later import torch

if TYPE_CHECKING:
    from pisa_ray.algorithm.methods.admm import AdmmRule

#: A term that a method adds to the loss: (inputs of the model's last linear layer, slice of the batch) -> a scalar.
Term: TypeAlias = "Callable[[torch.Tensor, slice], torch.Tensor]"

MemoryOf = Literal["steps", "founders"]


@dataclass(frozen=True)
class Ask:
    """A request of a method to a mini-batch, which is tried before a run.

    Attributes:
        ask: Makes the request at a point.
        wrong: The beginning of the error message if it fails.
        remedy: The end of that message: what the user can do.
    """

    ask: Callable[[Batch, torch.Tensor], object]
    wrong: str
    remedy: str


class Batch(Protocol):
    """A mini-batch B_i of a shard's data, and the mean loss on it as a function of the parameters."""

    def gradient(self, point: torch.Tensor, term: Term | None = None) -> torch.Tensor:
        """Return grad F_i(point; B_i), [p]. The caller may overwrite it, and the next gradient does."""

    def curvature(self, point: torch.Tensor) -> Curvature:
        """Return second-order information at a point, [p]; it is valid until the next call of any method."""

    def features(self, point: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the model's last linear layer, [rows, features], in evaluation mode without a graph."""


@dataclass(frozen=True)
class Task:
    """What a shard is given for a report.

    Attributes:
        w: The consensus point of the round, [p]; only read.
        draw: Draws the shard's next mini-batch.
        sigma: The penalty of the round, after growth.
        layout: Where the parameters lie in w.
        gap: Receives w_i - w, [p], in rounds with diagnostics; else None.
        memory: The memory of the consensus, [e], on the CPU; only read.
        steps: The number of mini-batches of the report, from `Method.gradients`.
        alpha: The shard's weight, if the method multiplies its message by it; see `Method.weighs`.
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
    """What the consensus of a round is given.

    Attributes:
        total: The sum of all messages, or their means in a robust consensus (then N and M are [p] and the weight is 1).
            It is only read, as it may lie in shared memory.
        w: The consensus point of the round, [p]; only read.
        sigma: The penalty of the round.
        layout: Where the parameters lie in w.
        out: Receives the next w, [p].
    """

    total: Message
    w: torch.Tensor
    sigma: float
    layout: Layout
    out: torch.Tensor


class Method(Kind, ABC, family="algorithm", homes=("pisa_ray.algorithm.methods",)):
    """A method: its numbers, the state of a shard, the step that changes it, and the consensus.

    Attributes:
        vectors: The largest number of vectors [p] in a message: 1, or 2 if M may be one.
        weighs: Whether `step` multiplies the message by task.alpha as it writes it; otherwise the caller does so.
        duals: Whether shards have a dual pi_i.
        proposes: Whether N_i / M_i is a shard's proposal for w, and the sum serves only their mean with weights
            alpha_i M_i. Then a robust mean can replace that mean.
        remedy: The advice to users when numbers overflow.
        memory_of: What the memory is about: "steps" that w has taken, such as their moments, which stay valid for any
            shards; or "founders", such as a mean over the first shards, so that no shard can join or leave. None: there
            is no memory. Shards cannot join or leave either if a class with a memory of its own does not say.
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
        """See the class."""
        return 1

    @property
    def remembers(self) -> bool:
        """Whether the last messages of absent shards stay in the sum; otherwise the sum is over the reporters."""
        return False

    @property
    @abstractmethod
    def sigma(self) -> float | Auto:
        """The first penalty, sigma^0; for baselines, the inverse of the learning rate."""

    def penalties(self, layout: Layout) -> Penalties:
        """Return where penalties lie in M: by default one number, or a vector if a message has two vectors."""
        return Penalties.number(layout.size) if self.vectors == 1 else Penalties.vector(layout.size)

    def shrinkage(self, w: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Return the gradient of the regulariser, lambda w, [p]; 0 if there is none."""
        return torch.zeros_like(w)

    def gradients(self, rows: int, batch: int) -> int:
        """Return the number of mini-batches of a report.

        Args:
            rows: n_i, the number of rows of the shard.
            batch: The number of rows of a mini-batch, at most n_i.
        """
        return 1

    def first_consensus(self, w: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Return w^1, [p], given w^init."""
        return w.clone()

    def initial_memory(self, layout: Layout) -> torch.Tensor:
        """Return the initial memory of the consensus, [e], as float32."""
        return torch.empty(0)

    def initial_state(self, w: torch.Tensor, layout: Layout) -> ShardState:
        """Return a shard's state before its first report, of the type and device of w."""
        return ShardState()

    @abstractmethod
    def step(self, shard: ShardState, task: Task, message: Message) -> float | None:
        """Update `shard` in place and write N_i and M_i to `message`.

        Returns:
            The momentum 1 - theta, mean of rho q / (sigma + rho q), in rounds with diagnostics if it exists; else None.
        """

    @abstractmethod
    def update(self, update: Update, memory: torch.Tensor) -> None:
        """Make the next w from the sum of the messages, and update `memory` [e] in place."""

    @property
    def is_complete(self) -> bool:
        """Whether all numbers are set, so that the automatic start has nothing to find."""
        return True

    def rules(self) -> Mapping[str, AdmmRule]:
        """Return the method's rules by their path, such as "rest."; baselines have none."""
        return {}

    def moved(self, layout: Layout) -> dict[str, list[str]]:
        """Return the parameters that each of several rules moves, by path; nothing if there is one rule."""
        return {}

    def with_numbers(self, found: Mapping[str, Any]) -> Self:
        """Return a copy with other numbers, given by path and name, such as "sigma" or "rest.sigma".

        Raises:
            KeyError: If there is no number of that name.
        """
        if found:
            raise KeyError(min(found))
        return self

    def asks(self) -> Sequence[Ask]:
        """Return the method's requests to a mini-batch beside gradients; a model may not be able to meet them."""
        return ()

    def check(self, layout: Layout) -> None:
        """Refuse parameters that the method cannot train.

        Raises:
            ValueError: If there are such parameters.
        """


#: How many local steps a report may have; a round with more would hardly end.
Steps = Annotated[int, Ge(1), Le(10**6)]


def memory_of(method: Method) -> MemoryOf | None:
    """Return `memory_of` of a method, or None if its class has a memory of its own and only inherits the attribute."""
    for kind in type(method).__mro__:
        if "memory_of" in vars(kind):
            said: MemoryOf | None = vars(kind)["memory_of"]
            return said
        if "initial_memory" in vars(kind):
            return None
    return None
