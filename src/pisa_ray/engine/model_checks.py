"""Checks that the parameters of a module can become parts of one flat vector."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from pisa_ray.errors import ConfigError


def check_trainable(module: nn.Module) -> None:
    """Check that a module has parameters, that their shapes are known, and that float32 can represent them.

    Raises:
        ConfigError: If there are none, or some cannot be represented.
    """
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(tensor):
            raise ConfigError(
                f"model is lazy: the shape of {name} is unknown before a first forward pass; name the size, as "
                "nn.Linear does, or call the model once in the function that makes it, on inputs of the right shape."
            )
        if tensor.is_meta:
            raise ConfigError(f"model has no values in {name}, which is on the meta device: make it on the CPU.")
        if tensor.is_inference():
            raise ConfigError(
                f"model has made {name} in inference mode, so that it cannot be trained: make it outside."
            )
    for name, p in module.named_parameters():
        if p.is_complex():
            raise ConfigError(
                f"model has complex numbers in parameter {name}, but parameters must be real: keep both parts in one "
                f"real parameter, torch.view_as_real({name}), and use torch.view_as_complex of it in forward."
            )
    if not any(p.requires_grad for p in module.parameters()):
        raise ConfigError("model has no trainable parameters: leave requires_grad True for at least one.")
