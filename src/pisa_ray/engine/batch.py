"""A mini-batch of a shard, with gradients and curvature of the model's loss on it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from pisa_ray.algorithm import Curvature
from pisa_ray.algorithm.method import Term
from pisa_ray.engine.flat_model import FlatModel
from pisa_ray.engine.gradient import curvature, gradient
from pisa_ray.engine.job import Job
from pisa_ray.errors import ConfigError


class ShardBatch:
    """A mini-batch; see pisa_ray.algorithm.method.Batch. Any number of gradients start from the same buffers.

    Args:
        model: The model, in training mode.
        job: The job, which has the loss.
        x: Inputs, [b, ...].
        y: Targets, [b].
        buffers: The model's floating buffers before the batch, [buffers].
        begin: Resets random numbers, counters and constants before a forward pass.
        probes: Seed of the random probes of curvature.

    Attributes:
        inputs: x.
        loss: Mean loss of the last gradient.
        left: The buffers after the last gradient, [buffers].
        seconds: Seconds spent on gradients and features.
    """

    def __init__(
        self,
        model: FlatModel,
        job: Job,
        x: torch.Tensor,
        y: torch.Tensor,
        buffers: torch.Tensor,
        begin: Callable[[], None],
        probes: int,
    ) -> None:
        self._model, self._job, self.inputs, self._y, self._begin, self._probes = model, job, x, y, begin, probes
        self._buffers = self.left = buffers
        self.loss, self.seconds = float("nan"), 0.0

    def __len__(self) -> int:
        return len(self._y)

    def gradient(self, point: torch.Tensor, term: Term | None = None) -> torch.Tensor:
        """See Batch."""
        start, model = time.perf_counter(), self._model
        self._go_to(point)
        if term is None:
            self.loss = gradient(model, self._job, self.inputs, self._y)
        else:
            with LastInputs(model.module) as features:
                self.loss = gradient(model, self._job, self.inputs, self._y, lambda rows: term(features.last(), rows))
        self.left = model.buffers.clone()
        self.seconds += time.perf_counter() - start
        return model.gradient

    @torch.no_grad()
    def features(self, point: torch.Tensor) -> torch.Tensor:
        """See Batch."""
        start, model = time.perf_counter(), self._model
        self._go_to(point)
        model.module.eval()
        autocast = torch.autocast(self.inputs.device.type, dtype=torch.bfloat16, enabled=bool(self._job.autocast))
        with LastInputs(model.module) as features, autocast:
            model.module(self.inputs)
        model.module.train()
        self.seconds += time.perf_counter() - start
        return features.last()

    def curvature(self, point: torch.Tensor) -> Curvature:
        """See Batch."""
        self._go_to(point)
        generator = torch.Generator(self.inputs.device).manual_seed(self._probes)
        return curvature(self._model, self._job, self.inputs, self._y, self._begin, generator)

    def _go_to(self, point: torch.Tensor) -> None:
        self._model.go_to(point)
        self._model.buffers.copy_(self._buffers)
        self._begin()


class LastInputs:
    """Records what enters a module's last linear layer."""

    def __init__(self, module: nn.Module) -> None:
        linear = [m for m in module.modules() if isinstance(m, nn.Linear)]
        if not linear:
            raise ConfigError(
                "algorithm MOON compares what enters the last nn.Linear, but the model has none: use another algorithm."
            )
        self._layer, self._caught = linear[-1], torch.empty(0)

    def __enter__(self) -> LastInputs:
        self._hook = self._layer.register_forward_pre_hook(self._catch)
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()

    def _catch(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._caught = inputs[0]

    def last(self) -> torch.Tensor:
        """Return the inputs of the layer in the last forward pass, [rows, features]."""
        return self._caught.flatten(1)
