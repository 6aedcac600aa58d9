"""Consensus in spite of bad shards: outlying messages are left out, or the moves of all duals are limited.

    trimmed mean   per coordinate, w without the d largest and the d smallest z_i = N_i / M_i
    median         the same with the largest possible d: one z_i stays, or the two in the middle
    clip           ||pi_i' - pi_i|| is at most factor times the median of these norms in the shards' last reports

A message proposes z_i (w_i + pi_i' / s_i in methods with duals) with the weight alpha_i M_i, and the plain consensus is
the weighted mean of the z_i, shrunk by lambda. Messages are left out by counting, so a shard gains nothing by a false
weight. The dual of a bad shard may go anywhere, as it reaches w through messages only.
"""

from __future__ import annotations

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Lt

from pisa_ray.algorithm.message import Message
from pisa_ray.algorithm.method import Task
from pisa_ray.algorithm.parts import DualState
from pisa_ray.fields import Positive
from pisa_ray.kinds import Kind
from pisa_ray.later import torch

#: The number of entries, over all messages, that are compared at a time; each takes about 30 bytes.
ENTRIES = 1 << 20

_FAR_APART = (
    "Where shards have different labels, honest shards are far apart by nature, and what is left out is signal; all "
    "messages are sent one by one, so more bytes travel."
)


class Robust(Kind, ABC, family="robust", homes=("pisa_ray.algorithm.robust",)):
    """A measure against bad shards."""

    text: ClassVar[str] = "TrimmedMean(), Median(), Clip()"
    usual: ClassVar[str] = "median"

    #: Whether it limits the moves of duals, by the norms in the shards' messages.
    clips: ClassVar[bool] = False

    def dropped(self, shards: int) -> int:
        """Return how many messages are left out on either side, per coordinate, given how many there are."""
        return 0

    def limit(self, norms: Sequence[float]) -> float:
        """Return the limit of a dual's move in the next round; only called if it clips."""
        return math.inf

    @abstractmethod
    def caveat(self, shards: int) -> str:
        """Return what a user should know before using it."""


@dataclass(frozen=True)
class TrimmedMean(Robust):
    """The mean without the largest and the smallest proposals of the shards, entry by entry of w.

    Attributes:
        share: The share of the shards left out on either side, rounded down to whole shards. It must be at least the
            share of bad shards, and at least one shard.
    """

    kind: ClassVar[str] = "trimmed_mean"

    share: Annotated[float, Ge(0), Lt(0.5)] = 0.2

    def dropped(self, shards: int) -> int:
        """Return floor(share m)."""
        return min(math.floor(self.share * shards + 1e-9), (shards - 1) // 2)

    def caveat(self, shards: int) -> str:
        """See Robust."""
        return f"the trimmed mean bears {self.dropped(shards)} bad shards of {shards}, not more. {_FAR_APART}"


@dataclass(frozen=True)
class Median(Robust):
    """The coordinate-wise median of what the shards propose, where every shard counts once.

    If their number is even, the two in the middle are weighed as in the mean.
    """

    kind: ClassVar[str] = "median"

    def dropped(self, shards: int) -> int:
        """See Robust."""
        return (shards - 1) // 2

    def caveat(self, shards: int) -> str:
        """See Robust."""
        return f"the median gives a sound result as long as fewer than half of {shards} shards are bad. {_FAR_APART}"


@dataclass(frozen=True)
class Clip(Robust):
    """A limit on the move of a shard's dual in a report, set by the moves that all shards' last reports asked for.

    In round 1 no norms are known yet, so the limit is 0: no dual moves, and the norms are measured.

    Attributes:
        factor: The limit in units of the median of the norms ||pi_i' - pi_i|| in the last reports of all shards, before
            clipping.
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
    """Return the means over the messages that are not left out, which replace the sum of all messages.

    Args:
        messages: All messages, weighed by alpha_i, in the order of the shards' ids, which settles ties.
        dropped: How many are left out on either side, per coordinate; less than half.

    Returns:
        Means weighed by alpha_i: N and M [p] over the messages whose N_i / M_i stays, and buffers [b] over those whose
        entry stays (a bad shard's BatchNorm statistics would spoil every evaluation); weight 1.
    """
    alpha = [message.weight for message in messages]
    N, M = _means([m.N for m in messages], [m.M for m in messages], alpha, dropped)
    buffers, _ = _means([m.buffers for m in messages], alpha, alpha, dropped)
    return Message(N, M, buffers, torch.ones_like(alpha[0]), messages[0].norms)


def _means(
    N: Sequence[torch.Tensor], M: Sequence[torch.Tensor], alpha: Sequence[torch.Tensor], dropped: int
) -> torch.Tensor:
    """Return the means of N_i and of M_i over the middle N_i / M_i, [2, entries]; M_i [entries] or [1], alpha_i [1]."""
    m, size = len(N), len(N[0])
    means = N[0].new_empty(2, size)
    columns = max(1, ENTRIES // m)
    for start in range(0, size, columns):
        part = slice(start, min(start + columns, size))
        n = torch.stack([x[part] for x in N])
        s = torch.stack([x if len(x) == 1 else x[part] for x in M])
        z = torch.where(s > 0, n / s, torch.inf)  # without a positive weight there is no proposal; NaNs come last, too
        middle = z.argsort(dim=0, stable=True)[dropped : m - dropped]
        kept = torch.zeros_like(z, dtype=torch.bool).scatter_(0, middle, value=True)
        sums = n.new_zeros(3, n.shape[1])
        for i in range(m):  # one by one, as the order of a reduction would depend on the kernel
            for total, values in zip(sums, (n[i], s[i], alpha[i]), strict=True):
                total.add_(torch.where(kept[i], values, 0))
        torch.div(sums[:2], sums[2], out=means[:, part])
    return means


def clip_dual(
    shard: DualState, before: torch.Tensor, task: Task, message: Message, penalty: torch.Tensor, limit: float
) -> float:
    """Limit the move of a shard's dual after its step, and change its message accordingly.

    Args:
        shard: The shard's state, whose dual is pi_i'.
        before: pi_i, [p].
        task: The task of the step.
        message: The message that the step has written, not weighed.
        penalty: The message's M, [1] or by entries of w, [p].
        limit: The largest norm of pi_i' - pi_i. A move that is not finite is not clipped, so that it is refused later.

    Returns:
        The norm before clipping.
    """
    move = shard.dual - before
    norm = float(move.double().norm())
    if limit < norm < math.inf:
        torch.add(before, move.mul_(limit / norm), out=shard.dual)
        torch.mul(task.w, penalty, out=message.N).add_(shard.dual).add_(move)
        if task.gap is not None:
            torch.div(move, penalty, out=task.gap)
    return norm
