"""Ray processes that are set up again instead of started: a start costs seconds, as torch is imported anew.

Whoever is ended while well is kept for the next run that wants a process of its kind; whoever is dead, frozen, or has
calls that could still come, is ended for good. Tests of processes that really begin and end use `fresh_processes`.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from pisa_ray.actors import RayResources, processes

#: How many of a kind are kept; so there is room in the tests' Ray for others.
KEPT = 5

_real = processes.start_worker, processes.start_consensus, processes.end


class Sum:
    """The handle of a consensus; its adds are counted, since they run in any order and must not reach the next run."""

    def __init__(self, actor: Any) -> None:
        self.actor, self.added = actor, []

    def __getattr__(self, name: str) -> Any:
        return self if name == "add" else getattr(self.actor, name)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        self.added = [*self.added[-50:], self.actor.add.remote(*args, **kwargs)]
        return self.added[-1]

    def is_quiet(self) -> bool:
        done, _ = ray.wait(self.added, num_returns=len(self.added), timeout=0) if self.added else ([], [])
        return len(done) == len(self.added)


class Warm:
    """Processes that are kept, by what they reserve.

    Attributes:
        keeps: Whether any are, just now.
    """

    def __init__(self) -> None:
        self.keeps = True
        self.kept: dict[str, list[Any]] = {}
        self.kinds: dict[Any, str] = {}

    def start_worker(self, resources: RayResources) -> Any:
        return self._take(f"{resources}", lambda: _real[0](resources))

    def start_consensus(self, node: str) -> Any:
        return Sum(self._take(f"consensus {node}", lambda: _real[1](node)))

    def end(self, actor: Any) -> None:
        handle = actor.actor if isinstance(actor, Sum) else actor
        kept = self.kept.setdefault(self.kinds.get(handle, ""), [])
        if handle in kept:
            return
        failing = sys.exc_info()[0] is not None
        quiet = actor.is_quiet() if isinstance(actor, Sum) else True
        if self.keeps and handle in self.kinds and len(kept) < KEPT and not failing and quiet and _answers(handle):
            kept.append(handle)
        else:
            _real[2](handle)

    def _take(self, kind: str, start: Any) -> Any:
        kept = self.kept.setdefault(kind, [])
        while kept:
            if _answers(handle := kept.pop()):
                return handle
            _real[2](handle)
        handle = start()
        self.kinds[handle] = kind
        return handle

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("start_worker", "start_consensus", "end"):
            monkeypatch.setattr(processes, name, getattr(self, name))

    def close(self) -> None:
        for kept in self.kept.values():
            for handle in kept:
                _real[2](handle)
        self.kept.clear()


def _answers(actor: Any) -> bool:
    """Whether a process lives and is not frozen."""
    pulse = actor.pulse.options(concurrency_group="pulse").remote()
    try:
        ray.get(pulse, timeout=1.0)
    except RayError:
        return False
    return True
