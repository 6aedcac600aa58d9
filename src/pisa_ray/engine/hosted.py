"""The shards that a worker hosts: their states, their rows, and the mini-batches that are made of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pisa_ray.algorithm import ShardState
from pisa_ray.data import BatchStream, Rows
from pisa_ray.engine.device import to_device
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import seed_all


@dataclass(frozen=True)
class ShardRows:
    """The rows of a shard and the stream of its mini-batches."""

    training: Rows
    held_out: Rows
    stream: BatchStream


@dataclass
class HostedShard:
    """The state of a shard and its rows; a worker that may not read the rows has the state only."""

    state: ShardState
    rows: ShardRows | None

    @property
    def own_rows(self) -> ShardRows:
        """The rows.

        Raises:
            RuntimeError: If the worker does not have the rows.
        """
        if self.rows is None:
            raise RuntimeError("a worker was asked for the rows of a shard whose rows are elsewhere")
        return self.rows


def read_rows(job: Job, shards: Sequence[int]) -> dict[int, ShardRows]:
    """Read the rows of shards, in one pass over each source."""
    founders = [i for i in shards if i < job.founders]
    found: dict[int, ShardRows] = {}
    for group in (founders, *([i] for i in shards if i >= job.founders)):
        if not group:
            continue
        parts = [(i, ids) for i in group for ids in (job.shards[i], job.held_out[i])]
        read, start = job.source(group[0]).read(np.concatenate([ids for _, ids in parts])), 0
        rows: dict[int, list[Rows]] = {}
        for i, ids in parts:
            rows.setdefault(i, []).append(read.take(np.arange(start, start + len(ids))))
            start += len(ids)
        for i, (training, held_out) in rows.items():
            size = job.batch_size if isinstance(job.batch_size, int) else None
            found[i] = ShardRows(training, held_out, BatchStream(job.seed, i, len(job.shards[i]), size))
    return found


def make_batch(
    job: Job, shard: int, rows: ShardRows, number: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a mini-batch of a shard as the model sees it.

    Args:
        job: The job, which has preprocessing and distortions.
        shard: The shard.
        rows: Its rows.
        number: The number of the mini-batch in the shard's stream, from 0.
        device: The device of the model.
    """
    positions = rows.stream.positions(number)
    x, y = rows.training.batch(positions)
    if job.preprocess.transform is not None:
        seed_all(job.seed, "augment", shard, number)
    x = job.preprocess(to_device(x, device), training=True)
    return job.distort(x, to_device(y, device), shard, job.shards[shard][positions], number)


def row_groups(job: Job, shard: int, rows: ShardRows, number: int) -> str:
    """Name the row groups of a mini-batch in the training file, if that has several."""
    starts = job.source(shard).starts()
    if len(starts) <= 2:
        return ""
    ids = job.shards[shard][rows.stream.positions(number)]
    groups = [str(g) for g in np.unique(np.searchsorted(starts, ids, side="right") - 1)]
    shown = ", ".join(groups[:8]) + (f" and {len(groups) - 8} more" if len(groups) > 8 else "")
    return f" (rows from row group{'s' if len(groups) > 1 else ''} {shown})"
