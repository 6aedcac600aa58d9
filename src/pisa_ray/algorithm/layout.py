"""The place of each parameter in the flat vector w."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from math import prod

from pisa_ray.later import torch


@dataclass(frozen=True)
class Slot:
    """One parameter's place in the flat vector.

    Attributes:
        name: The parameter's name in the model.
        shape: Its shape.
        start: Index of its first entry in the flat vector.
        matrix: Whether it counts as a matrix, (shape[0], the rest flattened); embeddings do not.
        head: Whether it is the weight of the model's last linear layer.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    matrix: bool
    head: bool = False

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @property
    def part(self) -> slice:
        """The slice of the flat vector that holds this parameter."""
        return slice(self.start, self.start + self.size)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(rows, columns) of the parameter as a matrix; a convolution is (out, in * kh * kw)."""
        return self.shape[0], self.size // self.shape[0]

    @property
    def flat(self) -> bool:
        """Whether it is a matrix of one row or column, such as a class token."""
        return self.matrix and min(self.matrix_shape) == 1


@dataclass(frozen=True)
class Layout:
    """The flat vector w of a model: its parameters one after the other, in the model's order.

    Attributes:
        slots: One entry per parameter; tied parameters appear once, frozen ones not at all.
    """

    slots: tuple[Slot, ...]

    @classmethod
    def of(cls, parameters: Iterable[tuple[str, tuple[int, ...], bool]], heads: Collection[str] = ()) -> Layout:
        """Lay out parameters given as (name, shape, matrix); with fewer than two dimensions none is a matrix.

        Args:
            parameters: The parameters in the model's order.
            heads: The names of the parameters that are the weight of a last linear layer.
        """
        slots, start = [], 0
        for name, shape, matrix in parameters:
            slots.append(Slot(name, tuple(shape), start, matrix and len(shape) > 1 and prod(shape) > 0, name in heads))
            start += slots[-1].size
        return cls(tuple(slots))

    @property
    def size(self) -> int:
        """p, the number of entries of w."""
        return self.slots[-1].part.stop if self.slots else 0

    def views(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the parameters as views of a flat vector [p], by name."""
        return {slot.name: flat[slot.part].view(slot.shape) for slot in self.slots}


def layout_of(module: torch.nn.Module) -> Layout:
    """Lay out the trainable parameters of a module, and tell embeddings and heads from the others.

    Embeddings are known by their class. The head is the last nn.Linear that is in no list of blocks (a ModuleList, or a
    Sequential of modules of one class); a model without such a layer has no head.
    """
    blocks_of = (m for m in module.modules() if _is_list_of_blocks(m))
    within = {id(part) for listed in blocks_of for part in listed.modules()}
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, torch.nn.Embedding | torch.nn.EmbeddingBag)}
    linear = [m.weight for m in module.modules() if isinstance(m, torch.nn.Linear) and id(m) not in within]
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    return Layout.of(
        ((name, tuple(p.shape), p.ndim >= 2 and id(p) not in embeddings) for name, p in trainable.items()),
        heads=[name for name, p in trainable.items() if linear and p is linear[-1] and id(p) not in embeddings],
    )


def _is_list_of_blocks(module: torch.nn.Module) -> bool:
    if not isinstance(module, torch.nn.Sequential):
        return isinstance(module, torch.nn.ModuleList)
    return len(module) > 1 and len({type(part) for part in module}) == 1 and any(True for _ in module[0].children())


#: Entries updated at a time on a CPU, so that a block stays in the core's own cache for all passes over it.
BLOCK = 1 << 16


def blocks(x: torch.Tensor) -> Iterator[slice]:
    """Yield slices of a vector to update in turn: blocks on a CPU, the whole elsewhere, which takes fewer kernels."""
    step = BLOCK if x.device.type == "cpu" else max(len(x), 1)
    for start in range(0, len(x), step):
        yield slice(start, min(start + step, len(x)))
