"""The reason why a loss is not finite, where it can be seen."""

from __future__ import annotations

import math

import torch

from pisa_ray.engine.job import Job
from pisa_ray.errors import PisaError


def check_inputs(job: Job, x: torch.Tensor, loss: float) -> None:
    """Refuse inputs that a transform has made, where a loss that is not finite may come from them.

    Without a transform inputs are known to be finite: they have been looked at as they are stored.

    Args:
        job: The transform, if there is one.
        x: The model's inputs, [b, ...].
        loss: The loss on them.

    Raises:
        PisaError: Neither they nor the loss are finite.
    """
    if math.isfinite(loss) or job.preprocess.transform is None or not x.is_floating_point():
        return
    finite = torch.isfinite(x).reshape(len(x), -1).all(1)
    if not bool(finite.all()):
        raise PisaError(
            f"data.transform returns inputs that are not finite, in row {int((~finite).nonzero()[0])} of a batch of "
            f"{len(x)}, so that the loss is {loss}: fill in there what the data leave open."
        )
