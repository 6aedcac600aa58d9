"""The Ray that a run uses: a running one where there is one, else one of its own."""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray._private import worker
from ray._private.state import available_resources_per_node
from ray._private.state import state as ray_state
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError
from ray.util import client as ray_client

from pisa_ray.actors.address import Address
from pisa_ray.actors.connection import GONE, Connection, Hanging, Watch, is_gone, is_hanging
from pisa_ray.actors.imports import job_config
from pisa_ray.errors import ConfigError, PisaError, RayLostError


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
        """Return the same resources on nodes with further labels."""
        return replace(self, labels=self.labels | dict(labels)) if labels else self

    def options(self) -> dict[str, Any]:
        """Return Ray's options of an actor that is a worker."""
        options: dict[str, Any] = {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "resources": self.other or None,
            "accelerator_type": self.accelerator,
            "scheduling_strategy": "SPREAD" if self.spread else "DEFAULT",
        }
        return options | ({"label_selector": self.labels} if self.labels else {})

    def each(self) -> dict[str, float]:
        """Return the resources of a worker by Ray's names."""
        named = {"CPU": self.cpus, "GPU": self.gpus, **self.other}
        if self.accelerator is not None:
            named[f"accelerator_type:{self.accelerator}"] = 0.001
        return {name: number for name, number in named.items() if number}

    def suit(self, labels: Mapping[str, str]) -> bool:
        """Return whether a node with these labels may hold a worker."""
        return all(_matches(labels.get(key), wanted) for key, wanted in self.labels.items())

    def __str__(self) -> str:
        text = ", ".join(f"{number:g} {name}" for name, number in self.each().items()) or "no resources"
        return text + (f" on a node labelled {self.labels}" if self.labels else "")


#: An environment variable that Ray looks at when the reference of a failed call is dropped.
_QUIET = "RAY_IGNORE_UNHANDLED_ERRORS"


@contextmanager
def ray_session(
    least: int,
    most: int,
    resources: RayResources,
    address: str | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
    hanging: Hanging | None = None,
) -> Iterator[None]:
    """Connect to Ray, or start one here that is sized for the workers; end only what began here.

    Args:
        least: Fewest workers the run may have.
        most: Most workers; a Ray that is started here has room for them as far as the machine has cores.
        resources: Of each.
        address: host:port, "auto" or "local"; None: the Ray this process is connected to, else RAY_ADDRESS, else a new
            one.
        stop_requested: Whether the user asked to stop; looked at while Ray starts.
        hanging: Told if Ray's processes are gone and the caller hangs in a call to Ray; then the process is ended.
            None: it is not.

    Raises:
        ConfigError: Nobody answers at the address, or no Ray can be started here.
        StoppedWaitingError: The user asked to stop.
        PisaError: Ray raised something that nobody has seen to.
    """
    if is_hanging():
        raise RayLostError("Ray hangs in this process: go on in a new one.")
    if ray_client.ray.is_connected():  # type: ignore[no-untyped-call]
        raise ConfigError(
            "a run cannot use Ray Client (ray://): run on a machine of the cluster, or use `ray job submit`."
        )
    try:
        if ray.is_initialized():
            watch = Watch([], hanging)
            try:
                yield
            finally:
                watch.close()
            return
        cores = max(least * resources.cpus, min(most * resources.cpus, os.cpu_count() or 1))
        with _quiet(), _connected(Address.of(address), cores, stop_requested, hanging):
            yield
    except Exception as error:
        if isinstance(error, PisaError) or not _is_rays(error):
            raise
        raise PisaError(f"Ray failed: {str(error).strip() or type(error).__name__}") from error


def _is_rays(error: Exception) -> bool:
    """Return whether an error comes from inside Ray, whatever its class."""
    if isinstance(error, RayError):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    file = frame.f_code.co_filename
    return file.startswith((os.path.dirname(ray.__file__), "python/ray/"))  # the latter is Ray's core


@contextmanager
def _connected(
    address: Address, cores: float, stop_requested: Callable[[], bool], hanging: Hanging | None
) -> Iterator[None]:
    options: dict[str, Any] = {"job_config": job_config()}
    if address.text == "local":  # logical cores, so that more workers than cores are possible
        options |= {"num_cpus": max(math.ceil(cores), 1), "include_dashboard": False}
    connection = Connection(address, options, hanging)
    connection.open(stop_requested)
    try:
        yield
    finally:
        connection.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Ray's tracebacks of calls that fail with a dead process, which the fleet handles."""
    before = os.environ.get(_QUIET)
    os.environ[_QUIET] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_QUIET]
        else:
            os.environ[_QUIET] = before


def can_grow() -> bool:
    """Return whether nodes may join; they cannot where this process has started Ray for itself."""
    node = worker._global_node
    return node is None or not node.is_head()


def room(resources: RayResources, *, in_all: bool = False) -> int:
    """Return how many more workers the cluster can hold now; in_all: how many if nothing else ran there.

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
    """Return Ray's description of each node that is alive and not about to leave, by its id.

    Raises:
        RayLostError: This process's own is not alive, as far as the cluster knows: its raylet is frozen, for example.
    """
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    here = ray.get_runtime_context().get_node_id()
    if any(node["NodeID"] == here and not node["Alive"] for node in nodes):
        raise RayLostError(GONE)
    leaving = draining()
    return {node["NodeID"]: node for node in nodes if node["Alive"] and node["NodeID"] not in leaving}


def draining() -> set[str]:
    """Return the nodes that are about to leave the cluster: preempted, drained by hand, or scaled down."""
    return set(ray_state.get_draining_nodes())


def ask_autoscaler(resources: RayResources, workers: int) -> None:
    """Let an autoscaler, where there is one, make the cluster large enough for so many workers; 0: nothing more."""
    if resources.each() and not is_gone():
        request_resources(bundles=[resources.each() for _ in range(workers)])


def _matches(value: str | None, wanted: str) -> bool:
    negated, text = wanted.startswith("!"), wanted.removeprefix("!")
    values = [v.strip() for v in text[3:-1].split(",")] if text.startswith("in(") else [text]
    return (value in values) != negated
