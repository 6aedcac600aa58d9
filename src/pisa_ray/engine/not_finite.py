"""Finds out whether inputs are the reason why a loss is not finite."""

from __future__ import annotations

import math

import torch

from pisa_ray.engine.job import Job
from pisa_ray.errors import PisaError


def check_inputs(job: Job, x: torch.Tensor, loss: float) -> None:
    """Refuse inputs of a transform that are not finite, if the loss on them is not finite either.

    Without a transform inputs are finite, as the stored ones have been checked.

    Args:
        job: The job, which may have a transform.
        x: The model's inputs, [b, ...].
        loss: The loss on them.

    Raises:
        PisaError: If neither the inputs nor the loss are finite.
    """
    if math.isfinite(loss) or job.preprocess.transform is None or not x.is_floating_point():
        return
    finite = torch.isfinite(x).reshape(len(x), -1).all(1)
    if not bool(finite.all()):
        raise PisaError(
            f"data.transform returns inputs that are not finite, in row {int((~finite).nonzero()[0])} of a batch of "
            f"{len(x)}, so that the loss is {loss}: let it replace such numbers."
        )
