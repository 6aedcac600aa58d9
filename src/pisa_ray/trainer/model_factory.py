"""Makes a function of the user's model that returns a new, equal model each time, or refuses the model."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import nn

from pisa_ray.data.purity import equal
from pisa_ray.engine.model_checks import check_trainable
from pisa_ray.engine.numerics import seed_globals
from pisa_ray.engine.user_code import refused
from pisa_ray.errors import ConfigError

_GIVE = "give a torch.nn.Module, or a function without arguments that makes one"


def model_factory(model: nn.Module | Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return a function that makes models: copies of a module, or the results of the user's function.

    Args:
        model: A module, or a function without arguments that makes one.

    Returns:
        A function that makes the model. It raises ConfigError if the user's function raises or returns anything but a
        module, or the module cannot be copied.
    """
    return partial(_copied, model) if isinstance(model, nn.Module) else partial(_made, model)


def steady(make: Callable[[], nn.Module], seed: int) -> tuple[Callable[[], nn.Module], tuple[str, ...]]:
    """Check that a model factory makes equal models from one seed; to be called in a borrowed process.

    Args:
        make: A function that model_factory returned.
        seed: The seed of the run.

    Returns:
        A function that makes equal models, and notes on the model for the user.

    Raises:
        ConfigError: If the models are not equal, or cannot be trained.
    """
    seed_globals(seed)
    first = make()
    check_trainable(first)
    seed_globals(seed)
    again = make()
    others = {str(p.dtype).removeprefix("torch.") for p in first.parameters() if p.requires_grad} - {"float32"}
    note = f"the model's parameters of type {', '.join(sorted(others))} are trained and saved as float32"
    if again is first:  # each worker needs its own model
        return partial(_copied, first), (note,) * bool(others)
    now = _tensors(again)
    for name, tensor in _tensors(first).items():
        if name not in now or not equal(tensor, now[name]):
            raise ConfigError(
                f"model: the function gives {name} other values each time, even from one seed, so that workers would "
                "start from different models: draw random numbers from torch's, numpy's or Python's global generators, "
                "which are seeded."
            )
    return make, (note,) * bool(others)


def _copied(module: nn.Module) -> nn.Module:
    if held := _computed(module):
        raise ConfigError(
            f"model cannot be copied, since it keeps a tensor that was computed from its parameters in {held}: "
            "give a function that makes the module, or leave that tensor out (detach() it, or set it to None)."
        )
    with refused("model cannot be copied", "give a function that makes the module"):
        return deepcopy(module)


def _made(make: Callable[[], nn.Module]) -> nn.Module:
    with refused("model could not be made", _GIVE):
        made: Any = make()
    if isinstance(made, nn.Module):
        return made
    if made is None:
        raise ConfigError("model: the function returned nothing, but it must return a torch.nn.Module: add a return.")
    given = f"the class {made.__name__}" if isinstance(made, type) else f"a {type(made).__name__}"
    raise ConfigError(
        f"model: the function returned {given}, but it must return a torch.nn.Module: return the module itself."
    )


def _computed(module: nn.Module) -> str | None:
    """Return the place of a tensor that torch cannot copy, such as a cached activation, if a module has one."""
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            if any(isinstance(tensor, torch.Tensor) and not tensor.is_leaf for tensor in held):
                return f"{name}.{attribute}".lstrip(".")
    return None


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.detach() for name, t in [*module.named_parameters(), *module.named_buffers()]}
