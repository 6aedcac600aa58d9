"""The automatic start of a run: the curvature of the loss is measured on the fleet, and sets sigma and rho."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from pisa_ray.algorithm import NSISA, SISAD, Auto, Method, Slope, Start, curvature
from pisa_ray.algorithm.admm import Settings
from pisa_ray.engine.fleet import Fleet
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import borrowed_process, borrowed_tensor
from pisa_ray.errors import ConfigError
from pisa_ray.schedulers import Constant, Matched, OnlineK0, SigmaSchedule, Trapezoid
from pisa_ray.trainer.model_factory import model_factory

#: How often the curvature is looked at anew because shards have gone away, or come back, meanwhile.
TRIES = 5


class _OtherShardsError(Exception):
    """A difference of gradients would be one of different shards."""


def default_method(model: nn.Module | Callable[[], nn.Module]) -> Method:
    """The method where none is named: NSISA for transformers, whose matrices it is made for, else SISA-D.

    A transformer is what has an embedding and layers that are normalised each by itself.
    """
    if not isinstance(model, nn.Module):
        with borrowed_process(threads=1):
            model = model_factory(model)()
    kinds = {type(part) for part in model.modules()}
    embeds = any(issubclass(kind, nn.Embedding) for kind in kinds)
    return NSISA() if embeds and any("LayerNorm" in k.__name__ or "RMSNorm" in k.__name__ for k in kinds) else SISAD()


def method_for(
    algorithm: Method | None, model: nn.Module | Callable[[], nn.Module], schedule: SigmaSchedule | None
) -> Method:
    """The method that a run trains with.

    OnlineK0 chooses growth, and no trial of a few rounds can tell a first sigma that is wrong for what comes later; so
    beside it a sigma that is given is a hint.
    """
    method = default_method(model) if algorithm is None else algorithm
    if isinstance(schedule, OnlineK0) and isinstance(method, Settings) and not isinstance(method.sigma, Auto):
        return replace(method, sigma=Auto(hint=method.sigma))
    return method


def automatic_schedule(method: Method) -> Constant | Matched | Trapezoid:
    """How sigma goes where nothing is said of it: constant, but after an automatic start what that was tried with."""
    if not is_automatic(method):
        return Constant()
    if isinstance(method, SISAD):
        return Trapezoid()
    if isinstance(method, NSISA):
        return Trapezoid(warmup=0.1, cooldown=0.4)
    return Matched(10.0)


def is_automatic(method: Method) -> bool:
    """Whether its sigma is found by the automatic start."""
    return isinstance(method.sigma, Auto)


def measured(fleet: Fleet, job: Job) -> tuple[Job, dict[str, float], int]:
    """Set what is still to be set of a job's method, before round 1.

    Args:
        fleet: At w^init; nothing of it changes.
        job: The job.

    Returns:
        The job, what was set, and the sample gradients that it took.

    Raises:
        ConfigError: The loss has no curvature there, or is not finite.
    """
    method = job.method
    if not isinstance(method, Settings) or method.is_complete:
        return job, {}, 0
    start, samples = Start(1.0, 1.0), 0
    if method.probes:
        start, samples = probe(fleet, job, method.metric, method.power_steps)
    now = method.started(start)
    found = {f.name: getattr(now, f.name) for f in fields(now) if getattr(now, f.name) != getattr(method, f.name)}
    return with_numbers(job, found), found, samples


def with_numbers(job: Job, found: dict[str, Any]) -> Job:
    """The job with numbers of its method set.

    Raises:
        ConfigError: The method has no such numbers.
    """
    method: Any = job.method
    if unknown := set(found) - {f.name for f in fields(method)}:
        raise ConfigError(f"the checkpoint sets {min(unknown)}, which {type(method).__name__} does not have.")
    return replace(job, method=replace(method, **found)) if found else job


def found_numbers(method: Method, found: Mapping[str, float]) -> str:
    """What was found, in words, beside the hints that were not taken as they are."""
    hints = {name: getattr(getattr(method, name), "hint", None) for name in found}
    return ", ".join(
        f"{name} {value:g}" + (f" (hint {hints[name]:g})" if hints[name] not in (None, value) else "")
        for name, value in found.items()
    )


def probe(fleet: Fleet, job: Job, metric: Callable[[Slope], torch.Tensor], steps: int) -> tuple[Start, int]:
    """Measure the curvature of the loss at w^init.

    Args:
        fleet: Before round 1.
        job: What is trained.
        metric: In which metric, [p], given the gradients at w^init.
        steps: Power steps; 1 is along the first move.

    Returns:
        What was found, and the sample gradients that it took.

    Raises:
        ConfigError: The loss has no curvature there, or is not finite.
    """
    published, asked, h = fleet.published(), 0, 0.0

    def slope(published: np.ndarray) -> Slope:
        nonlocal asked
        asked += 1
        return fleet.slope(published)

    for _ in range(TRIES):
        first = slope(published)
        p = len(first.mean)

        def gradient(point: torch.Tensor, first: Slope = first, p: int = p) -> torch.Tensor:
            there = slope(np.concatenate([point.numpy(), published[p:]]))
            if there.weight != first.weight:
                raise _OtherShardsError
            return there.mean

        try:
            if 0 < first.typical < np.inf:
                h = curvature(gradient, borrowed_tensor(published)[:p], first.mean, metric(first), steps)
            break
        except _OtherShardsError:
            continue
    if not first.typical < np.inf:
        raise ConfigError(
            "the automatic start finds gradients that are not finite at the initial model (typical entry "
            f"{first.typical:g}) on the shards' first mini-batches: look for what is not finite in inputs, targets "
            "or outputs."
        )
    if not 0 < h < np.inf:
        raise ConfigError(
            f"the automatic start finds a curvature of {h:g} of the loss at the initial model (typical gradient entry "
            f"{first.typical:g}), from which no sigma follows: give algorithm.sigma and algorithm.rho."
        )
    return Start(h, first.typical), asked * sum(job.batch_rows(i) for i in job.present)
