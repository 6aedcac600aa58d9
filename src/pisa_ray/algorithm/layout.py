"""Where each parameter lies in the flat vector w."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

import torch


@dataclass(frozen=True)
class Slot:
    """One parameter's place in the flat vector.

    Attributes:
        name: The parameter's name in the model.
        shape: Its shape.
        start: Index of its first entry in the flat vector.
        matrix: Whether NSISA may treat it as a matrix, (shape[0], the rest flattened).
    """

    name: str
    shape: tuple[int, ...]
    start: int
    matrix: bool

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
        """(rows, columns) as a matrix: a convolution is (out, in * kh * kw)."""
        return self.shape[0], self.size // self.shape[0]


@dataclass(frozen=True)
class Layout:
    """The flat vector w of a model: its parameters one after the other, in the model's order.

    Attributes:
        slots: One entry per parameter; tied parameters appear once, frozen ones not at all.
    """

    slots: tuple[Slot, ...]

    @classmethod
    def of(cls, parameters: Iterable[tuple[str, tuple[int, ...], bool]]) -> Layout:
        """Lay out parameters given as (name, shape, matrix)."""
        slots, start = [], 0
        for name, shape, matrix in parameters:
            slots.append(Slot(name, tuple(shape), start, matrix))
            start += slots[-1].size
        return cls(tuple(slots))

    @property
    def size(self) -> int:
        """p, the number of entries of w."""
        return self.slots[-1].part.stop if self.slots else 0

    def views(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parameters as views of a flat vector [p], by name."""
        return {slot.name: flat[slot.part].view(slot.shape) for slot in self.slots}


#: Entries updated at a time, so that a block of every vector stays in a core's cache: one pass over memory per step.
BLOCK = 1 << 15


def blocks(size: int) -> Iterator[slice]:
    """Cut a vector of `size` entries in slices of at most BLOCK entries."""
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))
