"""The loss and the metrics, which the user gives as functions, as names, or as "package.module:function"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from pisa_ray.data import Source
from pisa_ray.engine.job import Loss, Metrics, Objective, classification_metrics
from pisa_ray.errors import ConfigError
from pisa_ray.named import Named
from pisa_ray.registry import Registry


def _entry_by_entry(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], output: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    return loss(output.view_as(target), target.to(output.dtype))


#: Losses by name; each is a mean over rows and entries.
LOSSES = Registry("loss")

LOSSES.add(functional.cross_entropy)
LOSSES.add(partial(_entry_by_entry, functional.mse_loss), "mse")
LOSSES.add(partial(_entry_by_entry, functional.l1_loss), "l1")
LOSSES.add(partial(_entry_by_entry, functional.huber_loss), "huber")
LOSSES.add(partial(_entry_by_entry, functional.binary_cross_entropy_with_logits), "bce")

#: Metrics by name.
METRICS = Registry("metrics")

METRICS.add(classification_metrics, "accuracy")


def _together(metrics: Sequence[Metrics], output: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """Return the values of several metrics, each with names of its own.

    Raises:
        ConfigError: If two have a name in common.
    """
    found: dict[str, torch.Tensor] = {}
    for metric in metrics:
        values = metric(output, target)
        if twice := sorted(found.keys() & values.keys()):
            raise ConfigError(f"metrics give {twice[0]!r} twice: let each have names of its own.")
        found |= values
    return found


def objective_of(
    loss: Loss | str | None, metrics: Metrics | str | Sequence[Metrics | str] | None, train: Source
) -> Objective:
    """Return the loss and the metrics; by default cross-entropy and accuracy for integer labels, else squared error.

    Args:
        loss: A function, a name in LOSSES, "package.module:function", or None.
        metrics: A function, a name in METRICS, "package.module:function", or None; or several of them.
        train: The training data.

    Raises:
        ConfigError: If there is no such function, or a class is given in place of one.
    """
    several = metrics if isinstance(metrics, list | tuple) else [] if metrics is None else [metrics]
    measured = [_found(METRICS, one, "metrics") for one in several]
    measure = measured[0] if len(measured) == 1 else partial(_together, measured) if measured else None
    if loss is not None:
        return Objective(_found(LOSSES, loss, "loss"), measure or _nothing)
    if train.target_dtype.is_floating_point:
        return Objective(LOSSES.chosen("mse", "loss"), measure or _nothing)
    return Objective(functional.cross_entropy, measure or classification_metrics)


def _found(known: Registry, given: Any, name: str) -> Any:
    if isinstance(given, type):
        raise ConfigError(
            f"{name} is the class {given.__name__}, but a function is needed: give one of it, {given.__name__}()."
        )
    found = known.chosen(given, name) if isinstance(given, str) else given
    if isinstance(found, Named) and isinstance(kind := found.find(), type):
        raise ConfigError(
            f"{name} is {given!r}, the class {kind.__name__}, but a function is needed: name one of it, such as "
            f"my_loss = {kind.__name__}() in a module of yours."
        )
    return found


def _nothing(output: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    return {}
