"""A check that a data set returns the same item each time, as the process and the time may not matter."""

from __future__ import annotations

from typing import Any

import torch

from pisa_ray.data.keys import undisturbed_generators
from pisa_ray.data.rows import collate
from pisa_ray.errors import ConfigError

#: The number of items that are fetched twice, and the number if fetching one draws random numbers.
ITEMS, SUSPICIOUS_ITEMS = 8, 64


def checked_first_item(dataset: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Check that some items, spread over a torch data set, are the same when they are fetched again.

    Args:
        dataset: A data set with at least one item. Global random generators are restored afterwards.

    Returns:
        The first item, as a batch of one input and of one target.

    Raises:
        ConfigError: If an item differs, or cannot be fetched.
    """
    with undisturbed_generators() as state:
        before = state()
        _check_items(dataset, ITEMS)
        if state() != before:
            _check_items(dataset, SUSPICIOUS_ITEMS)
        return _fetched(dataset, 0)


def _check_items(dataset: Any, number: int) -> None:
    rows = len(dataset)
    for i in sorted({k * (rows - 1) // (number - 1) for k in range(number)}):
        first, again = _fetched(dataset, i), _fetched(dataset, i)
        for what, a, b in zip(("input", "target"), first, again, strict=True):
            if a.dtype != b.dtype or not equal(a, b):
                raise ConfigError(
                    f"item {i} of the {type(dataset).__name__} has another {what} each time it is fetched, so that "
                    "results would depend on who fetches it, and when: move random augmentation to data.transform, a "
                    "function (inputs, training) -> inputs, whose random numbers are the same in every run."
                )


def _fetched(dataset: Any, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        item = dataset[i]
    except Exception as error:
        raise ConfigError(
            f"item {i} of the {type(dataset).__name__} cannot be fetched ({type(error).__name__}: {error}): give data "
            f"whose items 0 to {len(dataset) - 1} are pairs of an input and a target."
        ) from error
    return collate([item])


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two tensors have the same shape and numbers, NaNs included."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
