"""The Ray that a run uses: a running one where there is one, else one of its own."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray._private.state import state as ray_state
from ray.autoscaler.sdk import request_resources

from pisa_ray.actors.imports import job_config
from pisa_ray.errors import ConfigError


@dataclass(frozen=True)
class RayResources:
    """What each worker reserves.

    Attributes:
        cpus: CPU cores per worker.
        gpus: GPUs per worker; a worker with one computes on it.
        other: Further Ray resources by name.
        labels: Ray's label selector: by label, "value", "!value", "in(a, b)" or "!in(a, b)".
        accelerator: Kind of GPU, as in ray.util.accelerators.
        spread: Whether to prefer nodes without a worker.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    other: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    accelerator: str | None = None
    spread: bool = False

    def on(self, labels: Mapping[str, str]) -> RayResources:
        """The same, on nodes with further labels."""
        return replace(self, labels=self.labels | dict(labels)) if labels else self

    def options(self) -> dict[str, Any]:
        """What Ray is told of an actor that is a worker."""
        options: dict[str, Any] = {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "resources": self.other or None,
            "accelerator_type": self.accelerator,
            "scheduling_strategy": "SPREAD" if self.spread else "DEFAULT",
        }
        return options | ({"label_selector": self.labels} if self.labels else {})

    def each(self) -> dict[str, float]:
        """The resources of a worker by Ray's names."""
        named = {"CPU": self.cpus, "GPU": self.gpus, **self.other}
        if self.accelerator is not None:
            named[f"accelerator_type:{self.accelerator}"] = 0.001
        return {name: number for name, number in named.items() if number}

    def suit(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels may hold a worker."""
        return all(_matches(labels.get(key), wanted) for key, wanted in self.labels.items())

    def __str__(self) -> str:
        text = ", ".join(f"{number:g} {name}" for name, number in self.each().items()) or "no resources"
        return text + (f" on a node labelled {self.labels}" if self.labels else "")


#: Ray looks at it when a failed call is forgotten.
_QUIET = "RAY_IGNORE_UNHANDLED_ERRORS"


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
    before = os.environ.get(_QUIET)
    os.environ[_QUIET] = "1"  # calls that fail with a dead process are seen to; Ray would print a traceback of each
    try:
        yield
    finally:
        ray.shutdown()
        if before is None:
            del os.environ[_QUIET]
        else:
            os.environ[_QUIET] = before


def _connect(address: str, cores: float) -> None:
    options: dict[str, Any] = {}
    if address == "local":  # logical cores, so that more workers than cores are possible
        options = {"num_cpus": max(math.ceil(cores), 1), "include_dashboard": False}
    try:
        ray.init(address=address, logging_level=logging.ERROR, job_config=job_config(), **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"ray.address is {address!r}, but Ray cannot be reached there: {error}") from error


def room(resources: RayResources, *, in_all: bool = False) -> int:
    """How many more workers the connected cluster can hold now; in_all: how many if nothing else ran there.

    Nodes that are draining hold none.
    """
    usable = [node for node in usable_nodes().values() if resources.suit(node.get("Labels", {}))]
    free: Mapping[str, Mapping[str, float]] = available_resources_per_node()  # type: ignore[no-untyped-call]
    have = [n["Resources"] if in_all else free.get(n["NodeID"], {}) for n in usable]
    each = resources.each()
    if not each:
        return sys.maxsize if usable else 0
    return sum(min(int(node.get(name, 0) / n + 1e-9) for name, n in each.items()) for node in have)


def usable_nodes() -> dict[str, dict[str, Any]]:
    """Ray's description of each node that is alive and not about to leave, by its id."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    leaving = draining()
    return {node["NodeID"]: node for node in nodes if node["Alive"] and node["NodeID"] not in leaving}


def draining() -> set[str]:
    """Nodes that are about to leave the cluster: preempted, drained by hand, or scaled down."""
    return set(ray_state.get_draining_nodes())


def ask_autoscaler(resources: RayResources, workers: int) -> None:
    """Let an autoscaler, where there is one, make the cluster large enough for so many workers; 0: nothing more."""
    if resources.each():
        request_resources(bundles=[resources.each() for _ in range(workers)])


def _matches(value: str | None, wanted: str) -> bool:
    negated, text = wanted.startswith("!"), wanted.removeprefix("!")
    values = [v.strip() for v in text[3:-1].split(",")] if text.startswith("in(") else [text]
    return (value in values) != negated
