"""Optimizers of torch.optim on a flat vector, as values, for local steps and for SyncOptimizer."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pisa_ray import checks
from pisa_ray.algorithm.layout import Layout
from pisa_ray.errors import ConfigError
from pisa_ray.later import torch


@functools.cache
def known_optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """Return the optimizers of torch by name, without LBFGS (needs a closure) and SparseAdam (sparse gradients)."""
    return {name.lower(): kind for name, kind in vars(torch.optim).items() if _is_optimizer(kind)}


def _is_optimizer(kind: Any) -> bool:
    base = torch.optim.Optimizer
    odd = (torch.optim.LBFGS, torch.optim.SparseAdam)
    return isinstance(kind, type) and issubclass(kind, base) and kind is not base and not issubclass(kind, odd)


#: The type of an option that names an optimizer.
OptimizerName = Annotated[
    str | type,
    checks.text
    | checks.Rule(
        "a class of torch.optim, not LBFGS or SparseAdam",
        lambda name, value: value if isinstance(value, type) and _is_optimizer(value) else checks.NOT,
    ),
]


@dataclass(frozen=True)
class Optimizer:
    """An optimizer of torch.optim with its options, as a value.

    Attributes:
        kind: Its class.
        options: Its keyword arguments without the learning rate, as (name, value) pairs.
    """

    kind: type[torch.optim.Optimizer]
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, kind: str | type, lr: float, options: Mapping[str, Any]) -> Optimizer:
        """Look up an optimizer and try it.

        Args:
            kind: A class like those of torch.optim, or the name of one in upper or lower case.
            lr: The learning rate, > 0.
            options: Its other keyword arguments.

        Raises:
            ConfigError: If there is no such optimizer, or it refuses the options.
        """
        known = known_optimizers().get(kind.lower()) if isinstance(kind, str) else kind
        if known is None:
            raise ConfigError(
                f"algorithm.optimizer is {kind!r}, but it must be one of {', '.join(sorted(known_optimizers()))}."
            )
        if "lr" in options:
            raise ConfigError(
                "algorithm.options has lr, but the learning rate is a setting of its own: leave it out there."
            )
        pairs = ((name, tuple(v) if isinstance(v, list) else v) for name, v in sorted(options.items()))
        made = cls(known, tuple(pairs))
        try:
            hash(made.options)
            made.on([torch.nn.Parameter(torch.zeros(2, 2))], lr)
        except Exception as error:  # the optimizer's class may raise anything
            raise ConfigError(
                f"algorithm.optimizer {known.__name__} refuses its algorithm.options: {error}."
            ) from error
        return made

    def on(self, parameters: list[torch.nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """Return the optimizer on some parameters, without a state."""
        keywords: Any = {"lr": lr, **dict(self.options)}
        return self.kind(parameters, **keywords)


def parameters(flat: torch.Tensor, layout: Layout) -> list[torch.nn.Parameter]:
    """Return the model's parameters as views of a flat vector."""
    return [torch.nn.Parameter(view) for view in layout.views(flat).values()]


def set_gradients(of: list[torch.nn.Parameter], gradient: torch.Tensor, layout: Layout) -> None:
    """Make the parameters' gradients views of a flat vector."""
    for parameter, view in zip(of, layout.views(gradient).values(), strict=True):
        parameter.grad = view


@dataclass(frozen=True)
class StateEntry:
    """A number or tensor of an optimizer's state, and its place in a flat float32 vector.

    Attributes:
        parameter: The index of the parameter that it belongs to.
        name: Its name in the parameter's state.
        number: Whether it is a Python number.
        dtype: The type whose bits the vector holds.
        shape: Its shape.
        part: Its slice of the vector.
    """

    parameter: int
    name: str
    number: type | None
    dtype: torch.dtype
    shape: tuple[int, ...]
    part: slice

    def read(self, flat: torch.Tensor) -> Any:
        """Return a copy of the value."""
        value = flat[self.part].clone().view(self.dtype).view(self.shape)
        return value if self.number is None else self.number(value.item())

    def write(self, flat: torch.Tensor, value: Any) -> None:
        """Write the value to the vector."""
        tensor = torch.as_tensor(value, dtype=self.dtype).contiguous()
        flat[self.part] = tensor.reshape(-1).view(torch.float32)


def kept_names(optimizer: torch.optim.Optimizer, on: list[torch.nn.Parameter]) -> list[tuple[int, str]]:
    """Return what an optimizer keeps, as (index of the parameter, name), without values that are None."""
    return [(k, name) for k, p in enumerate(on) for name, v in optimizer.state[p].items() if v is not None]


@functools.lru_cache(maxsize=4)
def state_entries(optimizer: Optimizer, layout: Layout) -> tuple[StateEntry, ...]:
    """Return what the optimizer keeps between two steps, found by a step with the gradient 0.

    Raises:
        ValueError: If it keeps something that no flat vector can hold.
    """
    flat = torch.zeros(layout.size)
    on = parameters(flat, layout)
    trial = optimizer.on(on, 1e-3)
    groups = [{**group, "params": None} for group in trial.param_groups]
    set_gradients(on, torch.zeros_like(flat), layout)
    trial.step()
    if groups != [{**group, "params": None} for group in trial.param_groups]:
        raise ValueError(f"{optimizer.kind.__name__} changes its own options: use an optimizer of torch.optim")
    entries, start = [], 0
    for k, parameter in enumerate(on):
        for name in (name for i, name in kept_names(trial, on) if i == k):
            value = trial.state[parameter][name]
            number = type(value) if isinstance(value, int | float) else None
            tensor = torch.as_tensor(value, dtype=torch.float64 if number else None)
            if tensor.numel() * tensor.element_size() % 4 or tensor.element_size() < 4:
                raise ValueError(f"{optimizer.kind.__name__} keeps {name} as {tensor.dtype}: use another optimizer")
            stop = start + tensor.numel() * tensor.element_size() // 4
            entries.append(StateEntry(k, name, number, tensor.dtype, tuple(tensor.shape), slice(start, stop)))
            start = stop
    return tuple(entries)
