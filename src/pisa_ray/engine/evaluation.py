"""Sums over evaluation rows, in fixed blocks, so that who evaluates what cannot change a bit of the mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch

from pisa_ray.data import Rows
from pisa_ray.engine.device import to_device
from pisa_ray.engine.flat_model import FlatModel
from pisa_ray.engine.job import Job
from pisa_ray.engine.metrics import check_same_names, checked_metrics
from pisa_ray.engine.not_finite import check_inputs

#: Sums over the rows of a block in float64: "rows", "loss" and one per metric.
Sums = dict[str, float]
#: Makes model inputs and targets, [b, ...], what they are in the shard that the rows at these positions belong to.
Distort = Callable[[torch.Tensor, torch.Tensor, np.ndarray], tuple[torch.Tensor, ...]]


@torch.no_grad()
def evaluate_rows(model: FlatModel, job: Job, rows: Rows, distort: Distort | None = None) -> Sums:
    """Sums over rows at the parameters the model holds, `job.evaluation_rows` at a time.

    Args:
        model: The model.
        job: Loss, metrics and options.
        rows: What is evaluated.
        distort: What is done to a shard's own rows; None: nothing.
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
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=job.autocast):
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
    """Means over all rows of blocks given in their canonical order; empty where there are no rows.

    Raises:
        PisaError: Blocks have metrics of different names.
    """
    total = _added(block for block in blocks if block["rows"])
    rows = total.pop("rows", 0.0)
    return {name: value / rows for name, value in total.items()} if rows else {}


def worst(shards: Iterable[Sums]) -> Mapping[str, float]:
    """The worst shard's mean of each name: the largest of a loss, else the smallest; empty where no shard has rows."""
    found = [means([sums]) for sums in shards if sums["rows"]]
    names = found[0] if found else ()
    # NumPy's largest and smallest are NaN where any number is.
    return {n: float((np.max if n.endswith("loss") else np.min)([shard[n] for shard in found])) for n in names}
