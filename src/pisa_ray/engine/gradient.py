"""The mini-batch gradient of one shard, and its curvature, at the parameters a FlatModel holds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.func import functional_call

from pisa_ray.algorithm import Curvature
from pisa_ray.engine.flat_model import FlatModel
from pisa_ray.engine.job import Job
from pisa_ray.engine.not_finite import check_inputs


def gradient(
    model: FlatModel,
    job: Job,
    x: torch.Tensor,
    y: torch.Tensor,
    term: Callable[[slice], torch.Tensor] | None = None,
) -> float:
    """Write the gradient of the mean loss over a batch to `model.gradient`.

    Micro-batches are added up with weights b_k / b, so their number changes rounding only, and BatchNorm, which sees
    each by itself. A gradient that is longer than `clip_norm` is scaled to that.

    Args:
        model: The model at the point w, in training mode.
        job: The job, which has the loss and the options.
        x: Inputs, [b, ...].
        y: Targets, [b].
        term: Returns a term that is added to the loss on some rows, after the forward pass on them.

    Returns:
        The mean loss, without the term.

    Raises:
        PisaError: If the model has replaced the gradient.
    """
    model.gradient.zero_()
    total, step = 0.0, job.micro_batch_size or len(y)
    for start in range(0, len(y), step):
        part = slice(start, start + step)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bool(job.autocast)):
            loss = job.objective.loss(model.module(x[part]), y[part])
        share = len(y[part]) / len(y)
        goal = loss if term is None else loss + term(part)
        (goal if share == 1 else goal * share).backward()  # type: ignore[no-untyped-call]
        total += share * loss.item()
    check_inputs(job, x, total)
    model.check_views()
    if job.clip_norm is not None:
        norm = float(torch.linalg.vector_norm(model.gradient))
        if norm > job.clip_norm:
            model.gradient.mul_(job.clip_norm / norm)
    return total


def curvature(
    model: FlatModel, job: Job, x: torch.Tensor, y: torch.Tensor, reseed: Callable[[], None], generator: torch.Generator
) -> Curvature:
    """Return the curvature of the loss on the same batch, with the same dropout masks."""

    def outputs(w: torch.Tensor) -> torch.Tensor:
        reseed()
        output: torch.Tensor = functional_call(model.module, model.layout.views(w), (x,))
        return output

    def sample_loss(w: torch.Tensor, j: int) -> torch.Tensor:
        reseed()
        views = model.layout.views(w)
        return job.objective.loss(functional_call(model.module, views, (x[j : j + 1],)), y[j : j + 1])

    return Curvature(model.parameters, outputs, lambda z: job.objective.loss(z, y), sample_loss, len(y), generator)
