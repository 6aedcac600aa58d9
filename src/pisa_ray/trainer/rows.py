"""Summaries of the reports of a round: its mean loss, its row of metrics, and whether all numbers are finite."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from pisa_ray.algorithm.diagnostics import combine
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import RoundReport
from pisa_ray.errors import NonFiniteError
from pisa_ray.schedulers import SigmaSchedule
from pisa_ray.trainer.manifest import Progress


def mean_loss(job: Job, report: RoundReport) -> float:
    """Return the mean training loss of a round; NaN if all shards that were to report went away."""
    shards = report.shards
    if not shards:
        return math.nan
    return sum(a * s.loss for a, s in zip(_shares(job, shards), shards.values(), strict=True))


def row_of(job: Job, schedule: SigmaSchedule, progress: Progress, report: RoundReport, workers: int) -> dict[str, Any]:
    """Return the row of a round without evaluations, which are added later.

    Args:
        job: The job.
        schedule: The sigma schedule.
        progress: The progress after the round.
        report: The report of the round.
        workers: The number of workers.
    """
    shards = list(report.shards.values())
    row: dict[str, Any] = {
        "round": progress.round,
        "seconds": progress.seconds,
        "train_loss": mean_loss(job, report),
        "worst_shard_loss": max((shard.loss for shard in shards), default=math.nan),
        "sigma": progress.sigma,
        "workers": workers,
        "shards_reporting": len(shards),
        "sample_gradients": progress.sample_gradients,
        **schedule.told(progress.memory),
        "bytes_sent": progress.bytes_sent,
        "gradient_seconds": progress.gradient_seconds,
        **dict.fromkeys(("primal_residual", "dual_residual", "consensus_residual", "consensus_move")),
    }
    if report.consensus.regulariser is None:
        return row
    row["consensus_residual"] = report.consensus.residual
    row["consensus_move"] = progress.sigma * (report.consensus.move or 0.0)
    # Reports that arrive in an asynchronous round but began in an earlier one have no diagnostics.
    known = {i: shard.diagnostics for i, shard in report.shards.items() if shard.diagnostics is not None}
    if known:
        row |= combine(list(known.values()), _shares(job, known))
        if row["augmented_lagrangian"] is not None:
            row["augmented_lagrangian"] += report.consensus.regulariser
    return row


def check_finite(job: Job, round_: int, sigma: float, report: RoundReport) -> None:
    """Check that a round has finite losses, messages and w.

    Raises:
        NonFiniteError: If one is not finite; it says which.
    """
    bad = [i for i, shard in report.shards.items() if not shard.finite]
    if not bad and report.consensus.finite:
        return
    strength = f"sigma {sigma:g}" if job.method.duals else f"learning rate {1 / sigma:g}"
    where = "the consensus w is not finite"
    if bad:
        loss = report.shards[bad[0]].loss
        where = f"shard {bad[0]} has loss {loss}" + (", but its message is not finite" if math.isfinite(loss) else "")
    raise NonFiniteError(
        f"round {round_} is not finite at {strength}: {where}. The last good checkpoint is kept; "
        f"{job.method.remedy} usually helps (also: check the data's scale, or set clip_norm)."
    )


def _shares(job: Job, shards: Collection[int]) -> list[float]:
    """Return the weights alpha_i of some shards, scaled so that they add up to 1."""
    alpha = [job.alpha[i] for i in shards]
    return alpha if len(alpha) == len(job.alpha) and not job.joined else [a / sum(alpha) for a in alpha]
