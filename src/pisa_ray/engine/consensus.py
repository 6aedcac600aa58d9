"""The consensus of a round: adds messages as they arrive and makes the next w. A plain class; see pisa_ray.actors."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from pisa_ray.algorithm import Method, RowLayout, TreeSum, consensus
from pisa_ray.engine.files import Folder
from pisa_ray.engine.numerics import borrowed_tensor
from pisa_ray.engine.worker import Payload


@dataclass(frozen=True)
class ConsensusReport:
    """Small numbers about the w just made.

    Attributes:
        finite: Whether w is.
        seconds: Time spent adding and updating.
        move: ||w^{r+1} - w^r||, in rounds with diagnostics.
        residual: ||sum alpha_i pi_i - lambda w||, the stationarity error up to noise.
        norm: ||w^r||.
    """

    finite: bool
    seconds: float
    move: float | None = None
    residual: float | None = None
    norm: float | None = None


class Consensus:
    """Holds the published vector: w, then the model's floating buffers, [p + b] float32.

    Args:
        method: For lambda, the kind of penalty and the first consensus.
        shards: m.
        parameters: p.
        initial: w^init and the initial buffers, [p + b].
    """

    def __init__(self, method: Method, shards: int, parameters: int, initial: np.ndarray) -> None:
        self._method, self._p = method, parameters
        self._tree = TreeSum(shards)
        self._published = torch.tensor(initial)
        self._published[:parameters] = method.first_consensus(self._published[:parameters])
        self._next = torch.empty_like(self._published)  # the two change places every round
        self._seconds = 0.0

    def publish(self) -> np.ndarray:
        """The current published vector, [p + b]; a view that lives until the next but one."""
        array: np.ndarray = self._published.numpy()
        return array

    def add(self, payload: Payload) -> None:
        """Add a worker's messages of this round; order does not matter."""
        start = time.perf_counter()
        for node, array in payload:
            self._tree.add(node, borrowed_tensor(array))
        self._seconds += time.perf_counter() - start

    def update(self, diagnose: bool) -> tuple[np.ndarray, ConsensusReport]:
        """Once all messages are in: make and publish the next w.

        Returns:
            What `publish` returns, and the report.
        """
        start = time.perf_counter()
        p, old, new = self._p, self._published, self._next
        rows = RowLayout(p, p if self._method.diagonal_penalty else 1, len(new) - p, dual=diagnose)
        total = rows.split(self._tree.total())
        w = consensus(total, self._method.lam, out=new[:p])
        torch.div(total.buffers, total.weight, out=new[p:])
        numbers = {}
        if diagnose:
            dual = total.dual / total.weight
            numbers = {
                "move": _norm(w - old[:p]),
                "residual": _norm(dual - self._method.lam * old[:p]),
                "norm": _norm(old[:p]),
            }
        self._tree.clear()
        self._published, self._next = new, old
        finite = math.isfinite(float(w.sum()))
        seconds, self._seconds = self._seconds + time.perf_counter() - start, 0.0
        return self.publish(), ConsensusReport(finite, seconds, **numbers)

    def save(self, folder: Folder, name: str) -> dict[str, object]:
        """Write the published vector; returns its entry in the manifest."""
        return folder.write_tensors(name, {"published": self._published})

    def restore(self, folder: Folder, entry: Mapping[str, object]) -> np.ndarray:
        """Take over the published vector of a checkpoint, and publish it."""
        expected = {"published": self._published}
        self._published.copy_(folder.read_tensors(entry, expected, expected)["published"])
        return self.publish()


def _norm(x: torch.Tensor) -> float:
    return float(x.double().norm())
