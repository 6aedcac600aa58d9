"""The parts of w, each of which follows a rule: the layout of their states, and a report of local steps on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pisa_ray.later import torch

if TYPE_CHECKING:
    from pisa_ray.algorithm.methods.admm import AdmmRule

from pisa_ray.algorithm import compiled
from pisa_ray.algorithm.kernel import Kernel, kernel_of
from pisa_ray.algorithm.layout import Layout, Slot, blocks
from pisa_ray.algorithm.message import Message, Penalties
from pisa_ray.algorithm.method import Batch, Task
from pisa_ray.algorithm.rules import Root
from pisa_ray.algorithm.state import ShardState


@dataclass(kw_only=True)
class DualState(ShardState):
    """The state of a shard for methods with duals.

    Attributes:
        dual: pi_i, the multiplier of w_i = w, [p].
        moment: Second moments of the entries whose rule has one.
        momentum: b_i of the entries whose rule has one.
    """

    dual: torch.Tensor
    moment: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    momentum: torch.Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(frozen=True)
class Piece:
    """Neighbouring entries under one rule.

    Attributes:
        entries: Their slice of w, the gradient, the dual and N.
        moment: Their slice of all moments, if they have any.
        momentum: Their slice of all momenta, if they have any.
        penalty: Their slice of M: the part's one entry, or an entry for each.
    """

    entries: slice
    moment: slice
    momentum: slice
    penalty: slice


@dataclass(frozen=True)
class Part:
    """The entries of w that one rule moves.

    Attributes:
        path: The prefix of its numbers in the method: "" or, for the rest of NSISA, "rest.".
        rule: The rule and its numbers.
        ratio: Its sigma, in units of the method's sigma.
        slots: Its parameters.
        pieces: Its entries.
    """

    path: str
    rule: AdmmRule
    ratio: float
    slots: tuple[Slot, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Plan:
    """The parts that a method makes of a layout.

    Attributes:
        layout: The layout.
        parts: The parts that have entries.
        penalties: Where their penalties lie in M.
        moments: Number of entries of all moments.
        momenta: Number of entries of all momenta.
    """

    layout: Layout
    parts: tuple[Part, ...]
    penalties: Penalties
    moments: int
    momenta: int

    @classmethod
    def of(cls, layout: Layout, members: Sequence[tuple[str, AdmmRule, float, Sequence[Slot]]]) -> Plan:
        """Lay out the parts.

        Args:
            layout: Where the parameters lie in w.
            members: The parts as (path, rule, ratio of sigma, parameters); each parameter is in one of them.
        """
        owner = {slot.start: k for k, (*_, slots) in enumerate(members) for slot in slots if slot.size}
        runs: list[tuple[int, slice]] = []
        for slot in layout.slots:
            if not slot.size:
                continue
            k = owner[slot.start]
            if runs and runs[-1][0] == k:
                runs[-1] = k, slice(runs[-1][1].start, slot.part.stop)
            else:
                runs.append((k, slot.part))
        moment = momentum = penalty = 0
        scalar: dict[str, slice] = {}  # by path, as the pieces of a part share their penalty
        pieces: dict[int, list[Piece]] = {}
        for k, entries in runs:
            path, rule, *_ = members[k]
            n = entries.stop - entries.start
            if rule.diagonal:
                place, penalty = slice(penalty, penalty + n), penalty + n
            elif path in scalar:
                place = scalar[path]
            else:
                place = scalar[path] = slice(penalty, penalty + 1)
                penalty += 1
            piece = Piece(
                entries,
                slice(moment, moment + n * rule.moments),
                slice(momentum, momentum + n * rule.momenta),
                place,
            )
            moment, momentum = piece.moment.stop, piece.momentum.stop
            pieces.setdefault(k, []).append(piece)
        parts = tuple(
            Part(path, rule, ratio, tuple(slots), tuple(pieces[k]))
            for k, (path, rule, ratio, slots) in enumerate(members)
            if k in pieces
        )
        places = tuple((piece.entries, piece.penalty) for part in parts for piece in part.pieces)
        return cls(layout, parts, Penalties(layout.size, penalty or 1, places), moment, momentum)

    def state(self, w: torch.Tensor) -> DualState:
        """Return a shard's state before its first report, which is all 0."""
        return DualState(dual=torch.zeros_like(w), moment=w.new_zeros(self.moments), momentum=w.new_zeros(self.momenta))


@dataclass(frozen=True)
class LocalStep:
    """One local step of a report.

    Attributes:
        task: The report's task.
        shard: The shard's state.
        message: The report's message, which the last step writes.
        batch: The step's mini-batch.
        v: The point that the step begins at, [p]; only read. The first step begins at task.w itself.
        g: The gradient at v, [p]; a rule may overwrite its own entries.
        to: Receives the point that the step leads to, [p]; the last step leaves it alone.
        number: The number of the step among all of the shard's, from 1: k in every bias correction.
        first: Whether it is the report's first step.
        last: Whether it is the report's last step.
    """

    task: Task
    shard: DualState
    message: Message
    batch: Batch
    v: torch.Tensor
    g: torch.Tensor
    to: torch.Tensor
    number: int
    first: bool
    last: bool

    def sigma(self, part: Part) -> float:
        """Return the part's penalty in the round."""
        return self.task.sigma if part.ratio == 1 else self.task.sigma * part.ratio

    def apply(
        self,
        part: Part,
        rule: str,
        numbers: Sequence[float],
        root: Root | None = None,
        root_numbers: Sequence[float] = (),
        vector: torch.Tensor | None = None,
    ) -> float | None:
        """Move the part's entries by a rule of rules.py.

        Args:
            part: The part.
            rule: The rule's name in kernel.RULES.
            numbers: The rule's numbers, sigma first.
            root: Updates the second moment and returns its root, if the rule has one.
            root_numbers: The root's numbers.
            vector: A vector that the rule takes where others have a moment, [p].

        Returns:
            The sum of theta = sigma / (sigma + rho q) over the entries in rounds with diagnostics, else None.
        """
        moment = part.rule.moments or vector is not None
        kernel = kernel_of(rule, root, moment, part.rule.diagonal, self.first, self.last)
        numbers, theta = kernel.numbers(numbers, root_numbers, self.task.alpha), 0.0
        for piece in part.pieces:
            at = piece.entries
            vectors = [self.task.w[at], self.g[at], self.shard.dual[at]]
            if moment:
                vectors.append(self.shard.moment[piece.moment] if vector is None else vector[at])
            vectors.append(self.message.N[at])
            if not self.last:
                vectors.append(self.to[at])
            elif part.rule.diagonal:
                vectors.append(self.message.M[piece.penalty])
            if self.task.gap is not None and self.last:
                theta += self._diagnosed(kernel, vectors, numbers, self.task.gap[at], self.sigma(part))
            else:
                compiled.run(kernel, vectors, numbers)
        self.settle(part)
        return theta if self.task.gap is not None and self.last else None

    def settle(self, part: Part) -> None:
        """Write the part's penalty to the message if it is a number."""
        if self.last and not part.rule.diagonal:
            self.message.M[part.pieces[0].penalty].fill_(self.sigma(part)).mul_(self.task.alpha)

    def _diagnosed(
        self, kernel: Kernel, vectors: Sequence[torch.Tensor], numbers: Sequence[float], gap: torch.Tensor, sigma: float
    ) -> float:
        """Do the same in a round with diagnostics: write w_i - w to `gap`, and return the sum of theta."""
        theta = 0.0
        for block in blocks(gap):
            move, s, denominator = kernel([x[block] for x in vectors], numbers, weigh=self.task.alpha != 1)
            torch.div(move, s, out=gap[block])
            share = torch.as_tensor(sigma / denominator)
            n = block.stop - block.start
            theta += float(share) * n if share.dim() == 0 else float(share.sum(dtype=torch.float64))
        return theta


def local_steps(shard: DualState, task: Task, message: Message) -> Iterator[LocalStep]:
    """Yield the local steps of a report, each with a mini-batch that is drawn after the step before."""
    taken = shard.reports * task.steps
    shard.reports += 1
    room = torch.empty_like(task.w) if task.steps > 1 else task.w
    for e in range(task.steps):
        batch, v = task.draw(), room if e else task.w
        yield LocalStep(
            task, shard, message, batch, v, batch.gradient(v), room, taken + e + 1, e == 0, e == task.steps - 1
        )


def step(plan: Plan, shard: DualState, task: Task, message: Message) -> float | None:
    """Make a shard's report; return the momentum of its last local step, as Method.step does."""
    momentum: float | None = None
    for local in local_steps(shard, task, message):
        theta = [part.rule.take(local, part) for part in plan.parts]
        known = [x for x in theta if x is not None]
        if local.last and task.gap is not None and len(known) == len(plan.parts):
            momentum = 1 - sum(known) / max(plan.layout.size, 1)
    return momentum
