"""The Ray that a run uses: a running one where there is one, else one of its own."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray

from pisa_ray.errors import ConfigError


@dataclass(frozen=True)
class RayResources:
    """What each worker reserves.

    Attributes:
        cpus: CPU cores per worker.
        gpus: GPUs per worker; a worker with one computes on it.
        other: Further Ray resources by name.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    other: dict[str, float] = field(default_factory=dict)


@contextmanager
def ray_session(least: int, most: int, resources: RayResources, address: str | None = None) -> Iterator[int]:
    """Connect to Ray, or start one here that is sized for the workers; end only what began here.

    Args:
        least: Fewest workers the run may have.
        most: Most workers it may have.
        resources: Of each.
        address: As in ray.init; None: the Ray this process is connected to, else RAY_ADDRESS, else a new one.

    Yields:
        The number of workers there is room for, from `least` to `most`.

    Raises:
        ConfigError: The address does not answer, or the cluster is too small.
    """
    ours = not ray.is_initialized()
    if ours:
        _connect(address or os.environ.get("RAY_ADDRESS") or "local", most, resources)
    try:
        yield _room(least, most, resources)
    finally:
        if ours:
            ray.shutdown()


def _connect(address: str, workers: int, resources: RayResources) -> None:
    options: dict[str, Any] = {}
    if address == "local":  # logical cores, so that more workers than cores are possible
        options = {"num_cpus": max(math.ceil(workers * resources.cpus), 1), "include_dashboard": False}
    try:
        ray.init(address=address, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"ray.address is {address!r}, but Ray cannot be reached there: {error}") from error


def _room(least: int, most: int, resources: RayResources) -> int:
    """How many workers the cluster can hold, by its free resources."""
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    each = {name: n for name, n in {"CPU": resources.cpus, "GPU": resources.gpus, **resources.other}.items() if n}
    for name, n in each.items():
        if least * n > free.get(name, 0) + 1e-9:
            raise ConfigError(
                f"{least} workers need {least * n:g} {name}, but the Ray cluster has {free.get(name, 0):g} free: "
                f"use fewer workers, less {name} per worker, or a larger cluster."
            )
    return min([most, *(int(free.get(name, 0) / n + 1e-9) for name, n in each.items())])
