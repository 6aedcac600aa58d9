"""Messages of shards, (6) of docs/algorithm.md, and their sum in (2), whose bits depend on shard ids only.

A message is one row of numbers, alpha_i times [ N_i | M_i | buffers | 1 | norms ]. Rows are added along the binary tree
over shard ids: node (level, index) covers the shards index * 2^level to (index + 1) * 2^level - 1 and is its left child
plus its right child; a child without messages is left out. Every process that computes a node gets the same bits, so
neither the placement of shards on workers nor the order of arrival can change the sum.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from pisa_ray.algorithm.layout import blocks
from pisa_ray.later import torch

#: (level, index) of a node of the canonical tree; the message of a shard is the leaf (0, shard).
Node = tuple[int, int]


@dataclass(frozen=True)
class Message:
    """The parts of a row, as views of it.

    Attributes:
        N: s w + 2 pi' - pi ( = s w_i + pi'), [p]; for baselines, a gradient or the change that local steps made.
        M: s as Penalties lays it out, [q]: one number, a vector [p], or some of either. The docstrings of baselines say
            what theirs is.
        buffers: The model's floating buffers, [b]: first BatchNorm statistics, then those that are not averaged, which
            the sum has from the first shard, unweighted.
        weight: 1 before weighting, the sum of alpha after summing, [1].
        norms: Where duals are clipped, ||pi_i' - pi_i|| at place i and 0 elsewhere, [m]; else [0].
    """

    N: torch.Tensor
    M: torch.Tensor
    buffers: torch.Tensor
    weight: torch.Tensor
    norms: torch.Tensor


@dataclass(frozen=True)
class Penalties:
    """Where the penalties of w's entries lie in M.

    Attributes:
        parameters: p, the number of entries of w.
        size: q, the number of entries of M.
        places: (entries of w, their places in M: one for all of them, or as many), for all of w.
    """

    parameters: int
    size: int
    places: tuple[tuple[slice, slice], ...]

    @classmethod
    def number(cls, parameters: int) -> Penalties:
        """Lay out one number for all entries."""
        return cls(parameters, 1, ((slice(0, parameters), slice(0, 1)),))

    @classmethod
    def vector(cls, parameters: int) -> Penalties:
        """Lay out one number for each entry."""
        return cls(parameters, parameters, ((slice(0, parameters), slice(0, parameters)),))

    def spread(self, M: torch.Tensor) -> torch.Tensor:
        """Return M by entries of w, [p], or M itself if it is one number for all, [1]."""
        if M.numel() in (1, self.parameters):
            return M
        out = M.new_empty(self.parameters)
        for entries, place in self.places:
            out[entries] = M[place]
        return out


@dataclass(frozen=True)
class RowLayout:
    """Where the parts of a message lie in its row.

    Attributes:
        parameters: p, the number of entries of w.
        penalties: q, the number of entries of M; see Penalties.
        buffers: b, the number of entries of the floating buffers.
        norms: m where duals are clipped, else 0.
    """

    parameters: int
    penalties: int = 1
    buffers: int = 0
    norms: int = 0

    @property
    def width(self) -> int:
        """The number of entries of a row."""
        return sum(self._sizes())

    def _sizes(self) -> list[int]:
        return [self.parameters, self.penalties, self.buffers, 1, self.norms]

    def complete(
        self, row: torch.Tensor, alpha: float, buffers: torch.Tensor, *, weighed: bool = False
    ) -> torch.Tensor:
        """Complete a row whose N and M a step has written: fill in the rest, then weigh it, float32(alpha_i N_i).

        Args:
            row: The row, [width]; changed in place.
            alpha: The shard's weight, rounded once to the row's type.
            buffers: The model's floating buffers after the shard's forward pass, [b].
            weighed: Whether N and M are weighed already.

        Returns:
            `row`.
        """
        message = self.split(row)
        message.buffers.copy_(buffers)
        message.weight.fill_(1)
        (row[self.parameters + self.penalties :] if weighed else row).mul_(alpha)
        return row

    def split(self, row: torch.Tensor) -> Message:
        """View a row [width] as a message."""
        return Message(*torch.split(row, self._sizes()))


def keep_buffers(message: Message, kept: torch.Tensor, *, speaks: bool) -> None:
    """Put the buffers that are not averaged into a complete message, so that the sum has them from one shard only.

    Args:
        message: The message; changed in place.
        kept: The last of the shard's buffers.
        speaks: Whether this is that shard.
    """
    own = message.buffers[-len(kept) :]
    if speaks:
        own.copy_(kept)
    else:
        own.zero_()


def consensus(total: Message, lam: float, out: torch.Tensor) -> torch.Tensor:
    """Solve for w = sum alpha_i N_i / (sum alpha_i M_i + lambda sum alpha_i), minimising the Lagrangian.

    Args:
        total: The sum of all rows.
        lam: lambda >= 0, the weight of (lambda/2) ||w||^2.
        out: Receives w, [p].

    Returns:
        `out`.
    """
    shrink = total.weight * lam
    for part in blocks(out):
        penalty = total.M if total.M.numel() == 1 else total.M[part]
        torch.div(total.N[part], penalty + shrink, out=out[part])
    return out


class TreeSum:
    """The canonical tree of one round. Nodes may arrive in any order, from any process, each once.

    Args:
        shards: m, the largest number of leaves.
    """

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self._leaves: Sequence[int] = range(shards)
        self._height = max(shards - 1, 0).bit_length()
        self._waiting: dict[Node, _Row] = {}
        self._spare: list[torch.Tensor] = []

    def expect(self, leaves: Sequence[int]) -> None:
        """Name the shards whose messages will come, in ascending order; without this call, those of all shards will."""
        self._leaves = leaves

    def _has(self, level: int, index: int) -> bool:
        """Return whether a message below a node is due."""
        first = bisect_left(self._leaves, index << level)
        return first < len(self._leaves) and self._leaves[first] < (index + 1) << level

    def add(self, node: Node, values: torch.Tensor, *, owned: bool = False) -> None:
        """Put a node into the tree, and add up pairs of children as far as both are known.

        Args:
            node: (level, index) of the row.
            values: Sum of that node's messages, [width]; only read, unless `owned`.
            owned: Whether the row came from `buffer` and is given back, so that it may be overwritten.

        Raises:
            ValueError: If the node is not in the tree, or is part of a sum already.
        """
        level, index = node
        if not (0 <= level <= self._height and 0 <= index << level < self.shards and self._has(level, index)):
            raise ValueError(f"node {node} is not in the tree over {len(self._leaves)} of {self.shards} shards")
        if any((up, index >> (up - level)) in self._waiting for up in range(level, self._height + 1)):
            raise ValueError(f"node {node} has been added already")
        if any(low < level and i >> (level - low) == index for low, i in self._waiting):
            raise ValueError(f"node {node} overlaps what has been added")
        row = _Row(values, owned)
        while level < self._height:
            sibling = (level, index ^ 1)
            if self._has(*sibling):
                other = self._waiting.pop(sibling, None)
                if other is None:
                    break
                row = self._plus(row, other) if index % 2 == 0 else self._plus(other, row)
            level, index = level + 1, index >> 1
        self._waiting[level, index] = row

    def _plus(self, left: _Row, right: _Row) -> _Row:
        out = left.values if left.owned else right.values if right.owned else self.buffer(len(left.values), left.values)
        if left.values.shape != right.values.shape:
            raise ValueError(f"rows of {len(left.values)} and {len(right.values)} entries cannot be added")
        torch.add(left.values, right.values, out=out)
        if left.owned and right.owned:
            self._spare.append(right.values)
        return _Row(out, owned=True)

    def nodes(self) -> dict[Node, torch.Tensor]:
        """Return the largest sums of the nodes so far, valid until the next `add` or `clear`."""
        return {node: row.values for node, row in sorted(self._waiting.items())}

    def is_complete(self) -> bool:
        """Return whether all messages have been added."""
        return set(self._waiting) == {(self._height, 0)}

    def total(self) -> torch.Tensor:
        """Return the sum of all messages, valid until the next `clear`.

        Raises:
            ValueError: If messages are missing.
        """
        if not self.is_complete():
            raise ValueError(f"the sum is not complete: it has only the nodes {sorted(self._waiting)}")
        return self._waiting[self._height, 0].values

    def buffer(self, width: int, like: torch.Tensor) -> torch.Tensor:
        """Return a row [width] to write to, of the type and device of `like`; used rows are handed out again."""
        for i, spare in enumerate(self._spare):
            if len(spare) == width and spare.dtype == like.dtype:
                return self._spare.pop(i)
        return like.new_empty(width)

    def clear(self) -> None:
        """Forget all nodes, and keep their rows for the next round if they have the width of the last one."""
        rows = [row.values for row in self._waiting.values()]
        self._spare += [row.values for row in self._waiting.values() if row.owned]
        self._spare = [spare for spare in self._spare if not rows or len(spare) == len(rows[-1])]
        self._waiting.clear()


@dataclass(frozen=True)
class _Row:
    values: torch.Tensor
    owned: bool
