"""The user's loss and metrics during the trial of a job, with checks of their arguments and results."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch

from pisa_ray.data.purity import equal
from pisa_ray.engine.job import Objective
from pisa_ray.engine.metrics import check_same_names, checked_metrics
from pisa_ray.engine.user_code import refused
from pisa_ray.errors import ConfigError

Loss = Callable[[Any, torch.Tensor], torch.Tensor]


class WatchedObjective:
    """Calls the loss and the metrics, and refuses them if they raise or return the wrong thing.

    Args:
        objective: The objective of the job.
        own: Whether the user has given the loss.
        look: Checks the first output, and may refuse it.

    Attributes:
        training: Whether the model is being trained; set by the caller, as are inputs and parameters.
        inputs: The model's inputs.
        parameters: The flat vector of the model's parameters, [p].
        output: The model's last output.
        names: The names of the metrics, once they have been measured.
    """

    def __init__(self, objective: Objective, *, own: bool, look: Callable[[Any], None]) -> None:
        self._objective, self._own, self._look = objective, own, look
        self.training = False
        self.parameters: torch.Tensor | None = None
        self.inputs: torch.Tensor | None = None
        self.output: Any = None
        self.names: tuple[str, ...] | None = None

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Return the loss.

        Raises:
            ConfigError: If the loss raises, is not a finite number, or mixes up rows.
        """
        if self.output is None:
            self._look(output)
        self.output = output
        given = f"an output {described(output)} and targets {described(target)}"
        name, remedy = "loss", "give a loss that fits the two"
        if not self._own:
            name, remedy = (
                "the default loss",
                "give a loss (and evaluate) that takes such an output, or change the model",
            )
        with refused(f"{name} cannot be applied to {given}", remedy), warnings.catch_warnings():
            warnings.filterwarnings("error", message="Using a target size")  # torch would broadcast, and train on that
            before = target.clone()
            value = self._objective.loss(output, target)
        if not equal(before, target):
            raise ConfigError(
                "loss changes the targets in place, but they are used again: let it work on target.clone()."
            )
        self._check(value, target)
        if isinstance(output, torch.Tensor) and not self.training:
            check_rows(self._objective.loss, output, target, float(value))
        return value

    def metrics(self, output: Any, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return the metrics.

        Raises:
            ConfigError: If a metric raises.
            PisaError: If a metric is not one number per row.
        """
        given = f"an output {described(output)} and targets {described(target)}"
        with refused(f"metrics cannot be applied to {given}", "give metrics that fit the two"):
            values = checked_metrics(self._objective.metrics(output, target), len(target))
        if self.names is not None:
            check_same_names(values, self.names)
        self.names = tuple(values)
        return values

    def _check(self, value: Any, target: torch.Tensor) -> None:
        wanted = "but it must return the mean over the rows, a tensor with one real number"
        if not isinstance(value, torch.Tensor):
            raise ConfigError(
                f"loss returns a {type(value).__name__}, {wanted}: compute it from the model's output with torch."
            )
        if value.numel() != 1:
            raise ConfigError(f"loss returns a tensor of shape {tuple(value.shape)}, {wanted}: end it with .mean().")
        if not value.is_floating_point():
            raise ConfigError(f"loss returns a number of type {value.dtype}, {wanted}: compute it from real outputs.")
        if self.training and not value.requires_grad:
            raise ConfigError(
                "loss does not depend on the model's parameters, as something between them and it has no derivative "
                "(.detach(), .item(), .data, argmax, torch.no_grad(), or an output that uses no parameter): compute it "
                "from the model's output with differentiable functions."
            )
        if self.training and (foreign := _foreign_parameter(value, self.parameters)) is not None:
            raise ConfigError(
                f"model or loss use a parameter of shape {tuple(foreign.shape)} that is not one of the model's, or has "
                "been given other values (.data = ...), so that it would never be trained: make it part of the model "
                "(layers in a list belong in a ModuleList, a loss's own parameters in the model), or detach() it."
            )
        if not math.isfinite(value.item()):
            raise ConfigError(
                f"the loss is {value.item()} at the initial model on {len(target)} rows of the smallest shard: "
                f"{self._where(target)}."
            )

    def _where(self, target: torch.Tensor) -> str:
        """Say which of inputs, targets and outputs is the first that is not finite."""
        parts = (("the model's inputs", self.inputs), ("the targets", target), ("the model's outputs", self.output))
        finite: list[str] = []
        for name, tensor in parts:
            if isinstance(tensor, torch.Tensor):
                if not bool(torch.isfinite(tensor).all()):
                    before = f"{' and '.join(finite)} are finite, " if finite else ""
                    return f"{before}{name} are not; look at what makes them"
                finite.append(name)
        return f"{', '.join(finite)} are finite, so look at the loss"


def check_rows(loss: Loss, output: torch.Tensor, target: torch.Tensor, value: float) -> None:
    """Check that a loss compares each row's output with its own target, and takes the mean over rows.

    Args:
        loss: The loss.
        output: The model's output, [rows, ...].
        target: The targets, [rows, ...].
        value: The loss of the two.

    Raises:
        ConfigError: If it does not.
    """
    if (stretched := _stretched(output, target)) is not None:
        apart = torch.linspace(0.15, 0.8, target.numel(), device=output.device)
        outputs = apart.to(output.dtype).view(output.shape)
        targets = (apart if target.is_floating_point() else torch.arange(len(apart)) % 2).to(target).view(target.shape)
        straight, shifted, none = (_value(loss, outputs, t) for t in (targets, targets.roll(1, 0), 0 * targets))
        if abs(straight - shifted) <= 1e-6 * abs(straight) < abs(straight - none):  # False if one is NaN
            raise ConfigError(
                f"loss compares outputs of shape {tuple(output.shape)} with targets of shape {tuple(target.shape)}, "
                f"which torch stretches to {stretched}, so that every output meets every target: bring them to one "
                "shape, output.view_as(target)."
            )
    if output.dim() and len(output) == len(target):
        twice = _value(loss, torch.cat([output, output]), torch.cat([target, target]))
        if abs(twice - 2 * value) < 1e-4 * abs(value):
            raise ConfigError(
                "loss adds up over the rows (it doubles when each row is there twice), but it must be the mean, so "
                "that batches of different sizes count alike: divide it by len(target), or use reduction='mean'."
            )


def _foreign_parameter(loss: torch.Tensor, own: torch.Tensor | None) -> torch.Tensor | None:
    """Return a parameter that a loss depends on and that does not lie in the model's flat vector, if any."""
    mine = None if own is None else own.untyped_storage().data_ptr()
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)  # a node that adds up the gradient of a leaf has one
        if isinstance(leaf, torch.nn.Parameter) and leaf.numel() and leaf.untyped_storage().data_ptr() != mine:
            return leaf
        nodes += [following for following, _ in node.next_functions]
    return None


def _value(loss: Loss, output: torch.Tensor, target: torch.Tensor) -> float:
    """Return the loss of made-up numbers; NaN if it raises."""
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(loss(output, target))
    return math.nan


def _stretched(output: torch.Tensor, target: torch.Tensor) -> tuple[int, ...] | None:
    """Return the broadcast shape of two tensors with as many entries, if that has more entries."""
    if output.numel() != target.numel() or output.shape == target.shape:
        return None
    with suppress(RuntimeError):
        together = tuple((torch.empty(output.shape, device="meta") + torch.empty(target.shape, device="meta")).shape)
        return together if math.prod(together) > target.numel() else None
    return None


def described(value: Any) -> str:
    """Describe a tensor by its shape and type, and anything else by its type."""
    if isinstance(value, torch.Tensor):
        return f"of shape {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return f"that is a {type(value).__name__}"
