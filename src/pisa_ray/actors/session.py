"""The Ray that a run uses: a running one where there is one, else one of its own."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private.state import available_resources_per_node

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


#: Seconds to wait for resources that a worker's death or an earlier run is about to free.
SETTLE = 15.0


@contextmanager
def ray_session(least: int, most: int, resources: RayResources, address: str | None = None) -> Iterator[None]:
    """Connect to Ray, or start one here that is sized for the workers; end only what began here.

    Args:
        least: Fewest workers the run may have.
        most: Most workers; a Ray that is started here has room for them as far as the machine has cores.
        resources: Of each.
        address: As in ray.init; None: the Ray this process is connected to, else RAY_ADDRESS, else a new one.

    Raises:
        ConfigError: The address does not answer.
    """
    if ray.is_initialized():
        yield
        return
    cores = max(least * resources.cpus, min(most * resources.cpus, os.cpu_count() or 1))
    _connect(address or os.environ.get("RAY_ADDRESS") or "local", cores)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str, cores: float) -> None:
    options: dict[str, Any] = {}
    if address == "local":  # logical cores, so that more workers than cores are possible
        options = {"num_cpus": max(math.ceil(cores), 1), "include_dashboard": False}
    try:
        ray.init(address=address, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"ray.address is {address!r}, but Ray cannot be reached there: {error}") from error


def room(least: int, most: int, resources: RayResources) -> int:
    """How many workers the connected cluster can hold, from `least` to `most`.

    Resources of processes that have just ended are waited for, a while.

    Raises:
        ConfigError: Even `least` do not fit.
    """
    each = {name: n for name, n in {"CPU": resources.cpus, "GPU": resources.gpus, **resources.other}.items() if n}
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    ever = min(most, _fit(each, {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}))
    until = time.monotonic() + SETTLE
    while (now := min(most, _fit(each, _free()))) < ever and time.monotonic() < until:
        time.sleep(0.1)
    if now < least:
        needs = ", ".join(f"{n:g} {name}" for name, n in each.items())
        raise ConfigError(
            f"{least} workers of {needs} each are asked for, but the Ray cluster has room for {now}: use fewer "
            "workers, smaller ones, or a larger cluster."
        )
    return now


def _free() -> Mapping[str, Mapping[str, float]]:
    free: Mapping[str, Mapping[str, float]] = available_resources_per_node()  # type: ignore[no-untyped-call]
    return free


def _fit(each: Mapping[str, float], nodes: Mapping[str, Mapping[str, float]]) -> int:
    """How many workers fit, each on one node."""
    if not each:
        return sys.maxsize
    return sum(min(int(node.get(name, 0) / n + 1e-9) for name, n in each.items()) for node in nodes.values())
