"""Finds out whether a model fails on its inputs because of their type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from pisa_ray.data import DTYPES, Preprocess
from pisa_ray.errors import ConfigError, PisaError


@contextmanager
def type_named(model: nn.Module, preprocess: Preprocess, stored: torch.Tensor) -> Iterator[None]:
    """Name the option that sets the inputs' type if the model fails on them, but not on inputs of another type.

    Args:
        model: The model, which is called in this context.
        preprocess: Makes the model's inputs.
        stored: Some inputs as they are stored, [b, ...].

    Raises:
        ConfigError: If that is so; other errors of the model pass through.
    """
    try:
        yield
    except PisaError:
        raise
    except Exception as error:
        x = preprocess(stored, training=False)
        for name, dtype in DTYPES.items():
            if x.dtype != dtype and _takes(model, stored if preprocess.transform is None else x, dtype):
                store = "store integers and " if stored.is_floating_point() and not dtype.is_floating_point else ""
                remedy = f"{store}set data.dtype to {name}"
                if preprocess.transform is not None:
                    remedy = f"return {name} from data.transform"
                raise ConfigError(
                    f"model cannot be applied to inputs of type {str(x.dtype).removeprefix('torch.')} "
                    f"({type(error).__name__}: {error}), but it can be applied to {name}: {remedy}."
                ) from error
        raise


def _takes(model: nn.Module, x: torch.Tensor, dtype: torch.dtype) -> bool:
    """Return whether the model can be applied to converted inputs, and the conversion loses nothing."""
    if x.is_complex() or (not dtype.is_floating_point and not (x == x.to(dtype)).all()):
        return False
    try:
        with torch.no_grad():
            model.eval()(x.to(dtype))
    except Exception:  # the reason does not matter
        return False
    return True
