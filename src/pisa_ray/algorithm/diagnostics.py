"""How the iteration is doing: the diagnostics of algorithm section 5."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ShardDiagnostics:
    """One shard's terms, in float64, after the dual line of a round.

    Attributes:
        gap: ||w_i - w||^2.
        dual_gap: ||pi_i + grad F_i(w_i)||^2, on the round's mini-batch.
        lagrangian: F_i(w_i) + <pi_i, w_i - w> + (s_i/2) ||w_i - w||^2, on the round's mini-batch.
        momentum: Mean of 1 - theta; None where Q has no entries.
    """

    gap: float
    dual_gap: float
    lagrangian: float
    momentum: float | None


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
    """Weighted over shards in the order of their ids, in float64: the same bits wherever the shards are.

    Returns:
        primal_residual, dual_residual, augmented_lagrangian (without its lambda term) and momentum.
    """
    pairs = list(zip(alpha, shards, strict=True))
    momenta = [a * s.momentum for a, s in pairs if s.momentum is not None]
    return {
        "primal_residual": math.sqrt(sum(a * s.gap for a, s in pairs)),
        "dual_residual": math.sqrt(sum(a * s.dual_gap for a, s in pairs)),
        "augmented_lagrangian": sum(a * s.lagrangian for a, s in pairs),
        "momentum": sum(momenta) if len(momenta) == len(pairs) else None,
    }
