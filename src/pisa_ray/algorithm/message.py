"""What a shard tells the consensus, and the sum whose bits depend on shard ids only: (6) and (2) of docs/algorithm.md.

A message is one row of numbers, alpha_i times [ N_i | M_i | buffers | 1 | norms ]. Rows are added along the binary tree
over shard ids: node (level, index) covers the shards index * 2^level to (index + 1) * 2^level - 1 and is its left child
plus its right child; where no shard has a say the other child stands alone. Whoever computes a node gets the same bits,
so who hosts which shard, and in what order messages arrive, cannot change the sum.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from pisa_ray.algorithm.layout import blocks
from pisa_ray.later import torch

#: (level, index) of a node of the canonical tree; a shard's own message is (0, shard).
Node = tuple[int, int]


@dataclass(frozen=True)
class Message:
    """The parts of a row, as views of it.

    Attributes:
        N: s w + 2 pi' - pi ( = s w_i + pi'), [p]; of baselines, a gradient or the way that local steps went.
        M: s, where Penalties says, [q]; one number or a vector [p], or some of either. Of baselines, what their
            docstrings say.
        buffers: The model's floating buffers, [b]: BatchNorm statistics; last those that are not averaged, of which the
            sum has the first shard's, unweighted.
        weight: 1 before weighting, sum of alpha after summing, [1].
        norms: Where duals are clipped, ||pi_i' - pi_i|| at place i and 0 elsewhere, [m]; else [0].
    """

    N: torch.Tensor
    M: torch.Tensor
    buffers: torch.Tensor
    weight: torch.Tensor
    norms: torch.Tensor


@dataclass(frozen=True)
class Penalties:
    """Where the penalties of w's entries are in M.

    Attributes:
        parameters: p, entries of w.
        size: q, entries of M.
        places: (entries of w, their places in M: one for all of them, or as many), for all of w.
    """

    parameters: int
    size: int
    places: tuple[tuple[slice, slice], ...]

    @classmethod
    def number(cls, parameters: int) -> Penalties:
        """One number for all."""
        return cls(parameters, 1, ((slice(0, parameters), slice(0, 1)),))

    @classmethod
    def vector(cls, parameters: int) -> Penalties:
        """One for each entry."""
        return cls(parameters, parameters, ((slice(0, parameters), slice(0, parameters)),))

    def spread(self, M: torch.Tensor) -> torch.Tensor:
        """M by entries of w, [p], or as it is where it is one number for all, [1]."""
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
        parameters: p, entries of w.
        penalties: Entries of M, see Penalties.
        buffers: b, entries of the floating buffers.
        norms: m where duals are clipped, else 0.
    """

    parameters: int
    penalties: int = 1
    buffers: int = 0
    norms: int = 0

    @property
    def width(self) -> int:
        """Entries of a row."""
        return sum(self._sizes())

    def _sizes(self) -> list[int]:
        return [self.parameters, self.penalties, self.buffers, 1, self.norms]

    def complete(
        self, row: torch.Tensor, alpha: float, buffers: torch.Tensor, *, weighed: bool = False
    ) -> torch.Tensor:
        """Make a leaf of a row whose N and M a step has written: fill in the rest, then weigh it, float32(alpha_i N_i).

        Args:
            row: The row, [width]; changed in place.
            alpha: The shard's weight, rounded once to the row's type.
            buffers: The model's floating buffers after the shard's forward pass, [b].
            weighed: Whether N and M are already.

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
    """Put in a complete message the buffers that are not averaged, so that the sum has them of one shard only.

    Args:
        message: The message; changed in place.
        kept: The last of the shard's buffers.
        speaks: Whether it is that shard.
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
        out: Where w goes, [p].

    Returns:
        `out`.
    """
    shrink = total.weight * lam
    for part in blocks(out):
        penalty = total.M if total.M.numel() == 1 else total.M[part]
        torch.div(total.N[part], penalty + shrink, out=out[part])
    return out


class TreeSum:
    """The canonical tree of one round; nodes may arrive in any order, from anywhere, each once.

    Args:
        shards: m, the number of leaves that there may be.
    """

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self._leaves: Sequence[int] = range(shards)
        self._height = max(shards - 1, 0).bit_length()
        self._waiting: dict[Node, _Row] = {}
        self._spare: list[torch.Tensor] = []

    def expect(self, leaves: Sequence[int]) -> None:
        """Say whose messages there will be, in ascending order; until then, and by default, everybody's."""
        self._leaves = leaves

    def _has(self, level: int, index: int) -> bool:
        """Whether a node has any leaf."""
        first = bisect_left(self._leaves, index << level)
        return first < len(self._leaves) and self._leaves[first] < (index + 1) << level

    def add(self, node: Node, values: torch.Tensor, *, owned: bool = False) -> None:
        """Put a node in its place and add up as far as both children of a parent are known.

        Args:
            node: (level, index) of the row.
            values: Sum of that node's messages, [width]; only read, unless `owned`.
            owned: The row came from `buffer` and is given back: it may be overwritten.

        Raises:
            ValueError: The node is not in the tree, or is part of a sum already.
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
        """The largest sums that can be formed from what has been added; they live until the next add or clear."""
        return {node: row.values for node, row in sorted(self._waiting.items())}

    def is_complete(self) -> bool:
        """Whether all messages are in."""
        return set(self._waiting) == {(self._height, 0)}

    def total(self) -> torch.Tensor:
        """The sum of all messages; it lives until the next clear.

        Raises:
            ValueError: Some shards' messages are missing.
        """
        if not self.is_complete():
            raise ValueError(f"the sum is not complete: it has only the nodes {sorted(self._waiting)}")
        return self._waiting[self._height, 0].values

    def buffer(self, width: int, like: torch.Tensor) -> torch.Tensor:
        """A row [width] to write to, of the type and device of `like`: a used one where one fits."""
        for i, spare in enumerate(self._spare):
            if len(spare) == width and spare.dtype == like.dtype:
                return self._spare.pop(i)
        return like.new_empty(width)

    def clear(self) -> None:
        """Forget all nodes; our rows are kept for the next round, but for those of another width than the last."""
        rows = [row.values for row in self._waiting.values()]
        self._spare += [row.values for row in self._waiting.values() if row.owned]
        self._spare = [spare for spare in self._spare if not rows or len(spare) == len(rows[-1])]
        self._waiting.clear()


@dataclass(frozen=True)
class _Row:
    values: torch.Tensor
    owned: bool
