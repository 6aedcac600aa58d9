"""The automatic start of a run, which measures the curvature of the loss on the fleet and sets sigma and rho by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from pisa_ray.algorithm import NSISA, SISAD, Admm, AdmmRule, Auto, Layout, Method, Slope, Start, curvature_along, policy
from pisa_ray.engine.fleet import Fleet
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import borrowed_process, borrowed_tensor
from pisa_ray.engine.participation import share_reporting
from pisa_ray.errors import ConfigError
from pisa_ray.schedulers import Constant, SigmaSchedule
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.model import Model, ModelSection
from pisa_ray.trainer.model_factory import model_factory

#: How often the curvature is measured again if shards go away, or come back, meanwhile.
TRIES = 5


class _OtherShardsError(Exception):
    """Two gradients are not of the same shards, so their difference means nothing."""


def default_method(model: Model) -> Method:
    """Return the default method: NSISA for transformers, whose matrices it is made for, else SISA-D.

    A model counts as a transformer if it has an embedding and layer norms.
    """
    if isinstance(model, ModelSection):
        if model.kind is not None:  # this library has no transformer
            return SISAD()
        model = model.called()
    if not isinstance(model, nn.Module):
        with borrowed_process(threads=1):
            model = model_factory(model)()
    kinds = {type(part) for part in model.modules()}
    embeds = any(issubclass(kind, nn.Embedding) for kind in kinds)
    return NSISA() if embeds and any("LayerNorm" in k.__name__ or "RMSNorm" in k.__name__ for k in kinds) else SISAD()


def method_for(algorithm: Method | None, model: Model, schedule: SigmaSchedule | None) -> Method:
    """Return the method that a run trains with.

    Beside OnlineK0 a given sigma is only a hint, as trials of a few rounds cannot tell whether the first sigma is wrong
    for later rounds.
    """
    method = default_method(model) if algorithm is None else algorithm
    if schedule is None or not schedule.tries:
        return method
    given = {f"{path}sigma": rule.sigma for path, rule in method.rules().items()}
    return method.with_numbers({key: Auto(hint=v) for key, v in given.items() if not isinstance(v, Auto)})


def settled(config: Config, planned: int | None = None) -> Config:
    """Return the options with the method and the sigma schedule filled in, as a run records them.

    Args:
        config: The options as given.
        planned: The rounds that a resumed run was planned over; None: `rounds`.

    Raises:
        ConfigError: If the model cannot be made.
    """
    method = method_of(config)
    return config.changed(
        algorithm=method, sigma_schedule=schedule_for(config.sigma_schedule, method, planned or config.rounds)
    )


def method_of(config: Config) -> Method:
    """Return the method that options name, or else the default for their model.

    Raises:
        ConfigError: If the model cannot be made.
    """
    return default_method(config.model) if config.algorithm is None else config.algorithm


def schedule_for(given: SigmaSchedule | None, method: Method, rounds: int) -> SigmaSchedule:
    """Return the sigma schedule of a run: the given one, or else the automatic one."""
    return (given or automatic_schedule(method)).over(rounds)


def automatic_schedule(method: Method) -> SigmaSchedule:
    """Return the default sigma schedule: constant, or the rule's usual schedule after an automatic start."""
    if not is_automatic(method):
        return Constant()
    first = next(iter(method.rules().values()))
    schedule: SigmaSchedule = SigmaSchedule.read(first.usual_schedule, "sigma_schedule")
    return schedule


def is_automatic(method: Method) -> bool:
    """Return whether the automatic start sets a sigma of the method's rules."""
    return any(isinstance(rule.sigma, Auto) for rule in method.rules().values())


def found_sigma(found: Mapping[str, Any]) -> bool:
    """Return whether a sigma is among the numbers that the start has set."""
    return any(name.rpartition(".")[2] == "sigma" for name in found)


def measured(fleet: Fleet, job: Job, layout: Layout, rounds: int) -> tuple[Job, dict[str, Any], int]:
    """Set the numbers of a job's method that are still to be set, before round 1.

    Args:
        fleet: The fleet at w^init, which does not change.
        job: The job.
        layout: Where the model's parameters lie in w.
        rounds: Length of the run.

    Returns:
        The job, the numbers that were set, and how many sample gradients that took.

    Raises:
        ConfigError: If the loss has no curvature there, or is not finite.
    """
    method, samples = job.method, 0
    reports = 1 + (rounds - 1) * share_reporting(job.participation, len(job.shards))
    if method.is_complete:
        return job, {}, 0
    now: dict[str, Any] = {}
    entries: dict[str, list[slice]] = {}
    for part in cast("Admm", method).plan(layout).parts:
        entries.setdefault(part.path, []).extend(piece.entries for piece in part.pieces)
    left = {path: rule for path, rule in method.rules().items() if not rule.is_set}
    starts: dict[type[AdmmRule], Start] = {}
    for path, rule in left.items():
        its, kind = policy(rule), type(rule)
        if its.probes and path not in entries:  # a rule without parameters needs no numbers
            continue
        if its.probes and kind not in starts:  # groups that follow the same rule move together
            together = [
                part for other, its_rule in left.items() if type(its_rule) is kind for part in entries.get(other, ())
            ]
            starts[kind], asked = probe(fleet, job, its.metric, its.steps, sorted(together, key=lambda x: x.start))
            samples += asked
        start = replace(starts.get(kind, Start(1.0, 1.0)), reports=reports)
        now |= {path + name: value for name, value in its.numbers(start).items()}
        if getattr(rule, "precision", None) == "auto":
            now[f"{path}precision"] = "bfloat16" if all(worker.bfloat16 for worker in fleet.workers()) else "float32"
    before = numbers_of(method)
    found = {name: value for name, value in now.items() if value != before[name]}
    return with_numbers(job, found), found, samples


def numbers_of(method: Method) -> dict[str, Any]:
    """Return all numbers that the automatic start may set, by path and name; Auto if still to be set."""
    if not method.rules():
        return {"sigma": method.sigma}
    names = ("sigma", "rho", "eps", "precision")
    return {p + n: getattr(rule, n) for p, rule in method.rules().items() for n in names if hasattr(rule, n)}


def with_numbers(job: Job, found: dict[str, Any]) -> Job:
    """Return the job with numbers of its method set.

    Raises:
        ConfigError: If the method has no such numbers.
    """
    if not found:
        return job
    try:
        method = job.method.with_numbers(found)
    except KeyError as error:
        raise ConfigError(
            f"the checkpoint sets {min(found)}, which {type(job.method).__name__} does not have."
        ) from error
    return replace(job, method=method)


def found_numbers(method: Method, found: Mapping[str, float | str]) -> str:
    """Return the numbers in words, each with its hint if that was not taken."""
    before = numbers_of(method)

    def words(name: str, value: float | str) -> str:
        hint = getattr(before.get(name), "hint", None)
        shown = f"{value:g}" if isinstance(value, float | int) else value
        return f"{name} {shown}" + (f" (hint {hint:g})" if hint not in (None, value) else "")

    return ", ".join(words(name, value) for name, value in found.items())


def probe(
    fleet: Fleet,
    job: Job,
    metric: Callable[[Slope, float], torch.Tensor],
    steps: int,
    entries: Sequence[slice] = (slice(None),),
) -> tuple[Start, int]:
    """Measure the curvature of the loss at w^init.

    Args:
        fleet: The fleet before round 1.
        job: The job.
        metric: Returns the metric, [p], given the gradients at w^init and their typical entry.
        steps: Number of power steps; 1 measures along the first move.
        entries: The entries of w to measure along.

    Returns:
        The measurements, and how many sample gradients they took.

    Raises:
        ConfigError: If the loss has no curvature there, or is not finite.
    """
    published, asked, h = fleet.published(), 0, 0.0

    def slope(published: np.ndarray) -> Slope:
        nonlocal asked
        asked += 1
        return fleet.slope(published)

    for _ in range(TRIES):
        first = slope(published)
        p, typical = len(first.mean), first.typical(entries)

        def gradient(point: torch.Tensor, first: Slope = first, p: int = p) -> torch.Tensor:
            now = slope(np.concatenate([point.numpy(), published[p:]]))
            if now.weight != first.weight:
                raise _OtherShardsError
            return now.mean

        try:
            if 0 < typical < np.inf:
                there = borrowed_tensor(published)[:p]
                h = curvature_along(gradient, there, first.mean, metric(first, typical), steps, entries)
            break
        except _OtherShardsError:
            continue
    if not typical < np.inf:
        raise ConfigError(
            "the automatic start finds gradients that are not finite at the initial model (typical entry "
            f"{typical:g}) on the shards' first mini-batches: look for what is not finite in inputs, targets "
            "or outputs."
        )
    if not 0 < h < np.inf:
        raise ConfigError(
            f"the automatic start finds a curvature of {h:g} of the loss at the initial model (typical gradient entry "
            f"{typical:g}), from which no sigma follows: give algorithm.sigma and algorithm.rho."
        )
    alpha = np.array([job.alpha[i] for i in job.present])
    signal = first.signal(entries, float(alpha @ alpha) / float(alpha.sum()) ** 2)
    return Start(h, typical, signal), asked * sum(job.batch_rows(i) for i in job.present)
