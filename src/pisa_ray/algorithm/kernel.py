"""A rule, its dual line and its message as one function of vectors and numbers, run block by block or compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pisa_ray.algorithm import rules
from pisa_ray.algorithm.rules import Moved, Number, Root
from pisa_ray.later import torch

#: (pi, g, m, root, numbers) -> (move, s, denominator), by name; m is the moment, or a vector that replaces it.
RULES: dict[str, Callable[..., Moved]] = {
    "given": lambda pi, g, m, root, n: (m, n[0], n[0]),
    "pisa": lambda pi, g, m, root, n: rules.pisa(pi, g, n[0], n[1]),
    "pisa_diagonal": lambda pi, g, m, root, n: rules.pisa(pi, g, n[0], m),
    "sisa": lambda pi, g, m, root, n: rules.sisa(pi, g, lambda d: root(m, d, *n[3:]), *n[:3]),
    "nsisa": lambda pi, g, m, root, n: rules.sisa(pi, g, lambda d: root(m, d, *n[4:]), *n[:4]),
    "sisa_d": lambda pi, g, m, root, n: rules.sisa_d(pi, g, lambda d: root(m, d, *n[3:]), *n[:3]),
}

#: How many numbers a rule has, not counting its root's.
NUMBERS = {"given": 1, "pisa": 2, "pisa_diagonal": 1, "sisa": 3, "nsisa": 4, "sisa_d": 3}


@dataclass(frozen=True)
class Kernel:
    """A local step on a block of entries.

    Attributes:
        rule: The rule's name in RULES.
        root: Updates the second moment and returns its root, or None.
        moment: Whether the step takes a moment, or a vector that replaces it.
        diagonal: Whether the penalty is a vector.
        first: Whether it is the report's first local step.
        last: Whether it is the report's last local step.
    """

    rule: str
    root: Root | None = None
    moment: bool = False
    diagonal: bool = False
    first: bool = True
    last: bool = True

    @property
    def name(self) -> str:
        """A description that can be part of a file's name."""
        root = f"-{self.root.__name__}" if self.root else ""
        return f"{self.rule}{root}{'-first' * self.first}{'-last' * self.last}"

    @property
    def count(self) -> int:
        """How many numbers a call takes."""
        of_root = 0 if self.root is None else self.root.__code__.co_argcount - 2
        return self.last + NUMBERS[self.rule] + of_root

    @property
    def vectors(self) -> int:
        """How many vectors a call takes."""
        return 4 + self.moment + (self.diagonal if self.last else 1)

    def numbers(self, rule: Sequence[float], root: Sequence[float], alpha: float) -> tuple[float, ...]:
        """Return the numbers of a call: alpha if it is the last step, the rule's numbers, then the root's."""
        return (alpha, *rule, *root) if self.last else (*rule, *root)

    def __call__(self, vectors: Sequence[torch.Tensor], numbers: Sequence[Number], *, weigh: bool = True) -> Moved:
        """Take the step.

        Args:
            vectors: w, g, pi, the moment or its replacement if there is one, the sum of the report's moves (which the
                last step turns into N), then the next v, or in the last step M if the penalty is a vector; [n] each.
            numbers: See `numbers`.
            weigh: Whether the message is multiplied by alpha.

        Returns:
            (move, penalty, denominator); the last step returns the sum of the report's moves as the move.
        """
        w, g, pi, *more = vectors
        m = more.pop(0) if self.moment else None
        total, *out = more
        alpha, numbers = (numbers[0], numbers[1:]) if self.last else (1.0, numbers)
        moved = RULES[self.rule](pi, g, m, self.root, numbers)
        if not self.last:
            out[0].copy_(rules.advance(w, pi, total, moved, self.first))
            return moved
        move = rules.report(w, pi, total, moved, self.first)
        if isinstance(moved[1], torch.Tensor) and self.diagonal:
            out[0].copy_(moved[1])
        if weigh:
            for said in (total, *out):
                said.mul_(alpha)
        return move, moved[1], moved[2]


#: Returns the same kernel for the same arguments, as every step asks for one.
kernel_of = lru_cache(maxsize=256)(Kernel)
