"""The canonical sum of the messages that stand: each shard's last one, until the next replaces it.

Where only some shards report, the last messages of the others stay in the sum (absent shards in docs/algorithm.md). The
sum is never changed by differences, since S + new - old drifts. Instead the nodes of the tree are kept, and when leaves
change, only their paths to the root are added anew: about log2(m) additions a message, with the bits of a new sum.
"""

from __future__ import annotations

from pisa_ray.algorithm.message import Node
from pisa_ray.later import torch


class StandingSum:
    """The tree of TreeSum with all its nodes, in the memory of two messages per shard.

    Args:
        shards: m, the largest number of leaves.
    """

    def __init__(self, shards: int) -> None:
        self._height = max(shards - 1, 0).bit_length()
        self._nodes: dict[Node, torch.Tensor] = {}
        self._own: dict[Node, torch.Tensor] = {}  # rows of nodes with two children
        self._changed: set[int] = set()

    def heard(self) -> list[int]:
        """Return the shards whose messages stand, ascending."""
        return sorted(index for level, index in self._nodes if level == 0)

    def put(self, shard: int, row: torch.Tensor) -> None:
        """Replace the shard's last message.

        Args:
            shard: The id of the shard, 0 to m - 1.
            row: Its message, weighed by alpha_i, [width]; it is copied.
        """
        standing = self._nodes.get((0, shard))
        if standing is None:
            self._nodes[0, shard] = row.clone()
        else:
            standing.copy_(row)
        self._changed.add(shard)

    def grow(self, shards: int) -> None:
        """Make room for shards with ids up to shards - 1; the sums so far keep their bits."""
        height = max(shards - 1, 0).bit_length()
        if height > self._height:
            self._height = height
            self._changed.add(0)  # the old root lies on this leaf's path to the new one

    def drop(self, shard: int) -> None:
        """Forget a shard's message."""
        del self._nodes[0, shard]
        self._changed.add(shard)

    def row(self, shard: int) -> torch.Tensor:
        """Return a shard's standing message, [width], to be read only; it is valid until the next replaces it."""
        return self._nodes[0, shard]

    def total(self) -> torch.Tensor:
        """Return the sum of all messages, [width], to be read only; it is valid until the next change.

        Raises:
            ValueError: If there is no message yet.
        """
        changed, self._changed = self._changed, set()
        for level in range(self._height):
            changed = {index >> 1 for index in changed}
            for index in sorted(changed):
                self._add_up((level + 1, index))
        if (self._height, 0) not in self._nodes:
            raise ValueError("no shard has a message in the sum yet")
        return self._nodes[self._height, 0]

    def _add_up(self, node: Node) -> None:
        level, index = node
        children = [row for i in (2 * index, 2 * index + 1) if (row := self._nodes.get((level - 1, i))) is not None]
        if len(children) == 2:
            if node not in self._own:
                self._own[node] = torch.empty_like(children[0])
            self._nodes[node] = torch.add(children[0], children[1], out=self._own[node])
            return
        self._own.pop(node, None)
        if children:  # the other one has no messages
            self._nodes[node] = children[0]
        else:
            self._nodes.pop(node, None)
