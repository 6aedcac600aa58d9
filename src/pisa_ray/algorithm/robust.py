"""Consensus in spite of bad shards: with the outlying messages left out, or with every shard's dual held back.

    trimmed mean   per coordinate, without the d largest and the d smallest z_i = N_i / M_i, w as from the others alone
    median         the same with d as large as can be: one z_i stays, or the two in the middle
    clip           ||pi_i' - pi_i|| is at most factor times the median of these norms in the shards' last reports

A message proposes z_i (of dual methods w_i + pi_i' / s_i) with the weight alpha_i M_i; the plain consensus is their
weighted mean, shrunk by lambda. Who is left out is decided by counting: a shard that lies about its weight, too, wins
nothing. A bad shard's own dual may go anywhere; it reaches w through its messages only.
"""

from __future__ import annotations

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Lt

from pisa_ray.algorithm.driver import DualState
from pisa_ray.algorithm.message import Message
from pisa_ray.algorithm.method import Task
from pisa_ray.later import torch
from pisa_ray.options import Kind, Positive

#: Entries of all messages that are compared at a time, in as many columns as that gives; each takes about 30 bytes.
ENTRIES = 1 << 20

_FAR_APART = (
    "Where shards have different labels, honest shards are far apart by nature, and what is left out is signal; all "
    "messages are sent one by one, so more bytes travel."
)


class Robust(Kind, ABC, family="robust", homes=("pisa_ray.algorithm.robust",)):
    """What is done against bad shards."""

    text: ClassVar[str] = "TrimmedMean(), Median(), Clip()"
    usual: ClassVar[str] = "median"

    #: Whether it limits how shards' duals move, from the norms that their messages tell.
    clips: ClassVar[bool] = False

    def dropped(self, shards: int) -> int:
        """How many messages of so many are left out on either side, per coordinate."""
        return 0

    def limit(self, norms: Sequence[float]) -> float:
        """The next round's limit of a dual's move, where it clips."""
        return math.inf

    @abstractmethod
    def caveat(self, shards: int) -> str:
        """What to know before it is used."""


@dataclass(frozen=True)
class TrimmedMean(Robust):
    """The coordinate-wise trimmed mean of what the shards propose.

    Attributes:
        share: Share of the shards left out on either side, at least 0 and below 0.5: it must be at least that of the
            bad ones.
    """

    kind: ClassVar[str] = "trimmed_mean"

    share: Annotated[float, Ge(0), Lt(0.5)] = 0.2

    def dropped(self, shards: int) -> int:
        """See Robust: floor(share m)."""
        return min(math.floor(self.share * shards + 1e-9), (shards - 1) // 2)

    def caveat(self, shards: int) -> str:
        """See Robust."""
        return f"the trimmed mean bears {self.dropped(shards)} bad shards of {shards}, not more. {_FAR_APART}"


@dataclass(frozen=True)
class Median(Robust):
    """The coordinate-wise median of what the shards propose, each counting once, whatever its weight.

    Of an even number the two in the middle are weighed as in the mean.
    """

    kind: ClassVar[str] = "median"

    def dropped(self, shards: int) -> int:
        """See Robust."""
        return (shards - 1) // 2

    def caveat(self, shards: int) -> str:
        """See Robust."""
        return f"the median bears less than half of {shards} shards being bad. {_FAR_APART}"


@dataclass(frozen=True)
class Clip(Robust):
    """A limit to how far a shard's dual moves in a report, from what all shards' last reports wanted.

    Nobody knows what is usual in round 1: its limit is 0, so no dual moves, and the norms are measured.

    Attributes:
        factor: The limit, in medians of the shards' norms ||pi_i' - pi_i|| before clipping; > 0.
    """

    kind: ClassVar[str] = "clip"
    clips: ClassVar[bool] = True

    factor: Positive = 3.0

    def limit(self, norms: Sequence[float]) -> float:
        """See Robust."""
        return self.factor * statistics.median(norms)

    def caveat(self, shards: int) -> str:
        """See Robust."""
        return (
            "clip limits how fast a shard's dual moves, not where to: it is for bursts, and does not stop a shard that "
            "errs steadily. In round 1 no dual moves, while what is usual is measured."
        )


def trimmed(messages: Sequence[Message], dropped: int) -> Message:
    """What takes the place of the sum of all messages: means over those that are not left out.

    Args:
        messages: All, weighed by alpha_i, in the order of the shards' ids, which settles ties.
        dropped: How many are left out on either side, per coordinate; less than half.

    Returns:
        Means weighed by alpha_i: N and M [p] of those whose N_i / M_i stays, buffers [b] of those whose entry there
        stays (a bad shard's BatchNorm statistics would spoil every evaluation); weight 1.
    """
    alpha = [message.weight for message in messages]
    N, M = _means([m.N for m in messages], [m.M for m in messages], alpha, dropped)
    buffers, _ = _means([m.buffers for m in messages], alpha, alpha, dropped)
    return Message(N, M, buffers, torch.ones_like(alpha[0]), messages[0].norms)


def _means(
    N: Sequence[torch.Tensor], M: Sequence[torch.Tensor], alpha: Sequence[torch.Tensor], dropped: int
) -> torch.Tensor:
    """Means of N_i and of M_i over the middle N_i / M_i, [2, entries]; M_i [entries] or [1], alpha_i [1]."""
    m, size = len(N), len(N[0])
    means = N[0].new_empty(2, size)
    columns = max(1, ENTRIES // m)
    for start in range(0, size, columns):
        part = slice(start, min(start + columns, size))
        n = torch.stack([x[part] for x in N])
        s = torch.stack([x if len(x) == 1 else x[part] for x in M])
        z = torch.where(s > 0, n / s, torch.inf)  # without a positive weight it is no proposal; NaNs come last, too
        middle = z.argsort(dim=0, stable=True)[dropped : m - dropped]
        kept = torch.zeros_like(z, dtype=torch.bool).scatter_(0, middle, value=True)
        sums = n.new_zeros(3, n.shape[1])
        for i in range(m):  # one after the other: a reduction's order is the kernel's
            for total, values in zip(sums, (n[i], s[i], alpha[i]), strict=True):
                total.add_(torch.where(kept[i], values, 0))
        torch.div(sums[:2], sums[2], out=means[:, part])
    return means


def clip_dual(
    shard: DualState, before: torch.Tensor, task: Task, message: Message, penalty: torch.Tensor, limit: float
) -> float:
    """Hold a shard's dual back after its step, and its message with it.

    Args:
        shard: Its dual is pi_i'.
        before: pi_i, [p].
        task: What the step was given.
        message: What it has written, not weighed.
        penalty: Its M, [1] or by entries of w, [p].
        limit: Largest norm of pi_i' - pi_i. What is not finite is not clipped, so that it is refused.

    Returns:
        The norm before.
    """
    move = shard.dual - before
    norm = float(move.double().norm())
    if limit < norm < math.inf:
        torch.add(before, move.mul_(limit / norm), out=shard.dual)
        torch.mul(task.w, penalty, out=message.N).add_(shard.dual).add_(move)
        if task.gap is not None:
            torch.div(move, penalty, out=task.gap)
    return norm
