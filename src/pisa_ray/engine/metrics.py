"""Checks that metrics are one number per row, by name, so that they can be added up over rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from pisa_ray.errors import PisaError

#: Names that evaluations use themselves: rows and loss, and the prefix of the worst shard's metrics.
_TAKEN = ("rows", "loss")
_PREFIX = "worst_shard_"

_NO_MEAN = (
    "return each row's own number, without .mean(), as the mean over all rows is taken afterwards (what only a whole "
    "set has, such as AUC or F1, can be computed from the saved model)"
)


def checked_metrics(values: Any, rows: int) -> Mapping[str, torch.Tensor]:
    """Return the values of the user's metrics if they can be added up over rows.

    Args:
        values: name -> one number per row, [rows].
        rows: The number of rows.

    Returns:
        `values`.

    Raises:
        PisaError: If the values are something else.
    """
    if not isinstance(values, Mapping):
        raise PisaError(
            f"metrics returns a {type(values).__name__}, but it must return a dict of one number per row by name: "
            'return {"accuracy": (output.argmax(1) == target)}, for example.'
        )
    for name, numbers in values.items():
        _check_name(name)
        _check_numbers(name, numbers, rows)
    return values


def check_same_names(names: Collection[str], before: Collection[str]) -> None:
    """Refuse metrics that have other names for some rows than for others.

    Raises:
        PisaError: If the names differ.
    """
    differing = sorted(set(names) ^ set(before))
    if differing:
        raise PisaError(
            f"metrics returns {', '.join(differing)} for some rows and not for others, but a mean over all rows "
            "needs every row: return the same names each time."
        )


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name or not name.isprintable():
        raise PisaError(f"metrics names a metric {name!r}, but a name must be printable text: use a str.")
    if name in _TAKEN or name.startswith(_PREFIX):
        raise PisaError(
            f"metrics names a metric {name!r}, but {' and '.join(_TAKEN)}, and names that begin with {_PREFIX}, are "
            "taken: use another name."
        )


def _check_numbers(name: str, numbers: Any, rows: int) -> None:
    if isinstance(numbers, torch.Tensor) and numbers.shape == (rows,) and not numbers.is_complex():
        return
    if isinstance(numbers, list | tuple | np.ndarray) and len(np.shape(numbers)) > 0 and len(numbers) == rows:
        given, remedy = f"a {type(numbers).__name__}", "make a tensor of it, torch.as_tensor(...)"
    elif not isinstance(numbers, torch.Tensor):
        given, remedy = f"a {type(numbers).__name__}", _NO_MEAN
    elif numbers.dim() == 0:
        given, remedy = "one number for all rows", _NO_MEAN
    elif numbers.is_complex():
        given, remedy = "complex numbers", "return real ones"
    elif numbers.numel() == rows:
        given, remedy = f"a tensor of shape {tuple(numbers.shape)}", "flatten() it"
    elif numbers.shape[0] == rows:
        given, remedy = f"a tensor of shape {tuple(numbers.shape)}", "take each row's mean, .flatten(1).mean(1)"
    else:
        given, remedy = f"a tensor of shape {tuple(numbers.shape)}", _NO_MEAN
    raise PisaError(
        f"metrics returns {name!r} as {given}, but it must be one number per row, a tensor of shape ({rows},) for "
        f"{rows} rows: {remedy}."
    )
