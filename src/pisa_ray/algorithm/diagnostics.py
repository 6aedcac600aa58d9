"""Diagnostics of a round, (12) of docs/algorithm.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pisa_ray.later import torch


@dataclass(frozen=True)
class ShardDiagnostics:
    """One shard's terms in float64 after its report; without a dual, all but the first are None.

    Attributes:
        gap: ||w_i - w||^2, where w_i is the end of the local steps.
        dual_gap: ||pi_i + grad F_i(w_i)||^2, on the round's mini-batch.
        lagrangian: F_i(w_i) + <pi_i, w_i - w> + (s_i/2) ||w_i - w||^2, on the round's mini-batch.
        momentum: Mean of 1 - theta; None where Q is a product without entries.
    """

    gap: float
    dual_gap: float | None = None
    lagrangian: float | None = None
    momentum: float | None = None


def shard_diagnostics(
    gap: torch.Tensor,
    dual: torch.Tensor,
    penalty: torch.Tensor,
    local_gradient: torch.Tensor,
    local_loss: float,
    momentum: float | None,
) -> ShardDiagnostics:
    """Reduce a shard's vectors to its terms.

    Args:
        gap: w_i - w, [p].
        dual: pi_i after the dual line, [p].
        penalty: s_i, [1] or [p].
        local_gradient: grad F_i(w_i), [p].
        local_loss: F_i(w_i).
        momentum: What the method's step returned.
    """
    square = gap.double().square()
    return ShardDiagnostics(
        gap=float(square.sum()),
        dual_gap=float((dual + local_gradient).double().square().sum()),
        lagrangian=local_loss
        + float((dual.double() * gap.double()).sum())
        + float((penalty.double() * square).sum()) / 2,
        momentum=momentum,
    )


def combine(shards: Sequence[ShardDiagnostics], alpha: Sequence[float]) -> dict[str, float | None]:
    """Return weighted sums over shards, in float64 and in the order of ids, so that the bits are the same anywhere.

    Returns:
        primal_residual, dual_residual, augmented_lagrangian (without its lambda term) and momentum.
    """

    def mean(values: Sequence[float | None]) -> float | None:
        known = [a * value for a, value in zip(alpha, values, strict=True) if value is not None]
        return sum(known) if len(known) == len(values) else None

    def root(square: float | None) -> float | None:
        return None if square is None else math.sqrt(square)

    return {
        "primal_residual": root(mean([s.gap for s in shards])),
        "dual_residual": root(mean([s.dual_gap for s in shards])),
        "augmented_lagrangian": mean([s.lagrangian for s in shards]),
        "momentum": mean([s.momentum for s in shards]),
    }
