"""A rule with the lines that follow it as one function of vectors and numbers: run block by block, or compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pisa_ray.algorithm import rules
from pisa_ray.algorithm.rules import Moved, Number, Root
from pisa_ray.later import torch

#: (pi, g, m, root, numbers) -> what rules.py gives, by name; m is the moment, or the vector that a rule takes for it.
RULES: dict[str, Callable[..., Moved]] = {
    "given": lambda pi, g, m, root, n: (m, n[0], n[0]),
    "pisa": lambda pi, g, m, root, n: rules.pisa(pi, g, n[0], n[1]),
    "pisa_diagonal": lambda pi, g, m, root, n: rules.pisa(pi, g, n[0], m),
    "sisa": lambda pi, g, m, root, n: rules.sisa(pi, g, lambda d: root(m, d, *n[3:]), *n[:3]),
    "nsisa": lambda pi, g, m, root, n: rules.sisa(pi, g, lambda d: root(m, d, *n[4:]), *n[:4]),
    "sisa_d": lambda pi, g, m, root, n: rules.sisa_d(pi, g, lambda d: root(m, d, *n[3:]), *n[:3]),
}

#: How many numbers a rule has, without its root's.
NUMBERS = {"given": 1, "pisa": 2, "pisa_diagonal": 1, "sisa": 3, "nsisa": 4, "sisa_d": 3}


@dataclass(frozen=True)
class Kernel:
    """One local step on a block.

    Attributes:
        rule: Its name in RULES.
        root: How the second moment goes on, or None.
        moment: Whether it takes a moment, or another vector in its place.
        diagonal: Whether the penalty is a vector.
        first: Whether it is the report's first local step.
        last: Whether it is the last.
    """

    rule: str
    root: Root | None = None
    moment: bool = False
    diagonal: bool = False
    first: bool = True
    last: bool = True

    @property
    def name(self) -> str:
        """What it is, in words that make a file's name."""
        root = f"-{self.root.__name__}" if self.root else ""
        return f"{self.rule}{root}{'-first' * self.first}{'-last' * self.last}"

    @property
    def count(self) -> int:
        """How many numbers it takes."""
        of_root = 0 if self.root is None else self.root.__code__.co_argcount - 2
        return self.last + NUMBERS[self.rule] + of_root

    @property
    def vectors(self) -> int:
        """How many vectors it takes."""
        return 4 + self.moment + (self.diagonal if self.last else 1)

    def numbers(self, rule: Sequence[float], root: Sequence[float], alpha: float) -> tuple[float, ...]:
        """The numbers of a call: the rule's, then the root's; the last step's begin with alpha."""
        return (alpha, *rule, *root) if self.last else (*rule, *root)

    def __call__(self, vectors: Sequence[torch.Tensor], numbers: Sequence[Number], *, weigh: bool = True) -> Moved:
        """Take the step.

        Args:
            vectors: w, g, pi, the moment or vector where there is one, the sum of the report's moves (N after the last
                step), then where v goes, or for the last step M where the penalty is a vector; [n] each.
            numbers: See `numbers`.
            weigh: Whether the message is multiplied by alpha.

        Returns:
            The sum of the report's moves after the last step, else what is undefined; the penalty; the denominator.
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


#: The same kernel for the same arguments, as a step asks for it again and again.
kernel_of = lru_cache(maxsize=256)(Kernel)
