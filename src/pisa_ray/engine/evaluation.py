"""Sums over evaluation rows in fixed blocks, so that the bits of a mean do not depend on who evaluates which block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch

from pisa_ray.data import Rows
from pisa_ray.engine.device import to_device
from pisa_ray.engine.flat_model import FlatModel
from pisa_ray.engine.hosted import ShardRows
from pisa_ray.engine.job import Job
from pisa_ray.engine.metrics import check_same_names, checked_metrics
from pisa_ray.engine.not_finite import check_inputs
from pisa_ray.engine.numerics import seed_all
from pisa_ray.engine.user_code import located

#: Sums over the rows of a block in float64: "rows", "loss" and one per metric.
Sums = dict[str, float]
#: Distorts model inputs and targets, [b, ...], as in the shard to which the rows at these positions belong.
Distort = Callable[[torch.Tensor, torch.Tensor, np.ndarray], tuple[torch.Tensor, ...]]


@torch.no_grad()
def evaluate_rows(model: FlatModel, job: Job, rows: Rows, distort: Distort | None = None) -> Sums:
    """Return sums over rows at the model's parameters, computed `job.evaluation_rows` rows at a time.

    Args:
        model: The model.
        job: Loss, metrics and options.
        rows: The rows to evaluate.
        distort: Distorts the rows as in a shard; None: they are not distorted.
    """
    model.module.eval()
    device = model.parameters.device
    blocks: list[Sums] = []
    for start in range(0, len(rows), job.evaluation_rows):
        positions = np.arange(start, min(start + job.evaluation_rows, len(rows)))
        x, y = rows.batch(positions)
        x, y = job.preprocess(to_device(x, device), training=False), to_device(y, device)
        if distort is not None:
            x, y = distort(x, y, positions)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bool(job.autocast)):
            output = model.module(x)
            loss = job.objective.loss(output, y)
        check_inputs(job, x, loss.item())
        metrics = checked_metrics(job.objective.metrics(output, y), len(y))
        sums = {name: float(values.double().sum()) for name, values in metrics.items()}
        blocks.append({"rows": float(len(y)), "loss": loss.item() * len(y), **sums})
    return _added(blocks) or {"rows": 0.0, "loss": 0.0}


def _added(blocks: Iterable[Sums]) -> Sums:
    total: Sums = {}
    for block in blocks:
        if total:
            check_same_names(block, total)
        for name, value in block.items():
            total[name] = total.get(name, 0.0) + value
    return total


def means(blocks: Iterable[Sums]) -> Mapping[str, float]:
    """Return means over all rows of blocks that are in their canonical order; empty without rows.

    Raises:
        PisaError: If blocks have metrics of different names.
    """
    total = _added(block for block in blocks if block["rows"])
    rows = total.pop("rows", 0.0)
    return {name: value / rows for name, value in total.items()} if rows else {}


def worst(shards: Iterable[Sums]) -> Mapping[str, float]:
    """Return the worst shard's mean of each name: the largest loss, else the smallest; empty without rows."""
    found = [means([sums]) for sums in shards if sums["rows"]]
    names = found[0] if found else ()
    # NumPy's largest and smallest are NaN if any number is.
    return {n: float((np.max if n.endswith("loss") else np.min)([shard[n] for shard in found])) for n in names}


class SplitRows:
    """The rows of a test or validation source that have been read, block by block."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int, int | None], Rows] = {}

    def block(self, job: Job, split: str, block: int, rows: int | None) -> Rows:
        """Return a block of a split, or of so many of its rows, evenly spaced.

        Raises:
            PisaError: If it cannot be read.
        """
        key = split, block, rows
        if key not in self._blocks:
            source = job.test if split == "test" else job.validation
            assert source is not None  # noqa: S101  (for the type checker)
            if rows is not None:  # only the last selection of rows stays in memory
                self._blocks = {known: read for known, read in self._blocks.items() if known[2] in (None, rows)}
            start, chosen = block * job.evaluation_rows, spaced(source.rows, rows)
            with located(f"{split} {block}"):
                self._blocks[key] = source.read(chosen[start : start + job.evaluation_rows])
        return self._blocks[key]


def evaluate_block(
    model: FlatModel, job: Job, rows: Rows, split: str, number: int, distort: Distort | None = None
) -> Sums:
    """Evaluate the rows of a block or a shard, with seeds of their own.

    Args:
        model: The model.
        job: Loss, metrics and seed.
        rows: The rows to evaluate.
        split: "test", "validation" or "shard".
        number: The block or the shard.
        distort: Distorts the rows as in a shard; None: they are not distorted.

    Raises:
        PisaError: If user code raised; the sentence names the block.
    """
    model.reset(0)
    seed_all(job.seed, f"evaluate {split}", number)
    with located(f"{split} {number}"):
        return evaluate_rows(model, job, rows, distort)


def evaluate_shard(model: FlatModel, job: Job, i: int, own: ShardRows, *, held_out: bool, rows: int | None) -> Sums:
    """Evaluate a shard's own rows, held-out or training ones, with their distortions.

    Args:
        model: The model.
        job: Loss, metrics and distortions.
        i: The shard.
        own: Its rows.
        held_out: Whether the held-out rows are evaluated.
        rows: The number of rows, evenly spaced; None: all.
    """
    some, ids = (own.held_out, job.held_out[i]) if held_out else (own.training, job.shards[i])
    chosen = spaced(len(some), rows)
    some = some if rows is None else some.take(chosen)

    def distort(x: torch.Tensor, y: torch.Tensor, positions: np.ndarray) -> tuple[torch.Tensor, ...]:
        return job.distort(x, y, i, ids[chosen[positions]])

    return evaluate_block(model, job, some, "shard", i, distort)


def spaced(number: int, rows: int | None) -> np.ndarray:
    """Return positions of some rows among a number of rows, evenly spaced, as files may be sorted; None: all."""
    some = number if rows is None else min(rows, number)
    return np.arange(some) * number // max(some, 1)
