"""Parameters that move together: their entries one after the other, so that a step is few operations, however many."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import torch

from pisa_ray.algorithm import Layout, Message, RowLayout, Settings, Task, TreeSum, Update

#: What the optimizer keeps of a parameter.
State = MutableMapping[str, Any]

#: The vectors of a shard's state, which are kept by their name and the shard's number.
VECTORS = ("dual", "moment", "momentum")


def working_type(p: torch.Tensor) -> torch.dtype:
    """The type that a parameter's steps are computed in: its own, or float32 for shorter ones."""
    return torch.float64 if p.dtype == torch.float64 else torch.float32


class Bucket:
    """Parameters of one group, type and device that have as many reports behind them.

    What must last is in the optimizer's state of each parameter, as views of the bucket's vectors: "step", the reports
    of each shard; the vectors of each shard's state; and of parameters shorter than float32 "master", which they are
    rounded from. A bucket takes over what is there and can be made anew from it at any time.

    Args:
        params: The parameters.
        rule: Their rule.
        shards: How many shards there are.
        states: What the optimizer keeps of them; the views are put here.

    Attributes:
        params: The parameters.
        rule: Their rule.
    """

    def __init__(self, params: Sequence[torch.Tensor], rule: Settings, shards: int, states: Sequence[State]) -> None:
        self.params, self.rule = list(params), rule
        first = params[0]
        self._layout = Layout.of((str(k), tuple(p.shape), True) for k, p in enumerate(params))
        self._w = torch.empty(self._layout.size, dtype=working_type(first), device=first.device)
        self._g = torch.empty_like(self._w)
        self._out = list(self._layout.views(self._w).values())
        self._shards = [rule.initial_state(self._w, self._layout) for _ in range(shards)]
        self._rows = RowLayout(self._layout.size, rule.penalties(self._layout).size)
        self._tree = TreeSum(shards)
        self._short = first.dtype != self._w.dtype
        self._heard: set[int] = set()
        self._take_over(states)

    @torch.no_grad()
    def _take_over(self, states: Sequence[State]) -> None:
        self._steps = torch.tensor([reports(state, len(self._shards)) for state in states])
        found: dict[str, list[torch.Tensor]] = {}
        for k, shard in enumerate(self._shards):
            shard.reports = int(self._steps[0, k])
            for name in VECTORS:
                vector = getattr(shard, name)
                if len(vector):
                    found[f"{name}_{k}"] = list(self._layout.views(vector).values())
        if self._short:
            found["master"] = self._out
            torch._foreach_copy_(self._out, [p.detach() for p in self.params])
        for i, state in enumerate(states):
            for name, views in found.items():
                if name in state:
                    views[i].copy_(state[name])
            state.clear()
            state.update({"step": self._steps[i], **{name: views[i] for name, views in found.items()}})
        self._duals = found["dual_0"]

    def holds(self, states: Sequence[State]) -> bool:
        """Whether what the optimizer keeps of the parameters is still the bucket's own."""
        return all(state.get("dual_0") is dual for state, dual in zip(states, self._duals, strict=True))

    def report(self, k: int, sigma: float) -> None:
        """Take a step of shard k on the gradients that the parameters have, None being 0; parameters stay."""
        if not k:
            self._gather()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.params]
        self._heard.update(i for i, p in enumerate(self.params) if p.grad is not None)
        torch.cat([g.reshape(-1) for g in gradients], out=self._g)
        alpha, row = 1 / len(self._shards), self._tree.buffer(self._rows.width, self._w)
        task = Task(self._w, lambda: _Drawn(self._g), sigma, self._layout, alpha=alpha)
        self.rule.step(self._shards[k], task, self._rows.split(row))
        self._rows.complete(row, alpha, self._w[:0], weighed=True)
        self._tree.add((0, k), row, owned=True)
        self._steps[:, k] += 1

    def _gather(self) -> None:
        """Let w be where the parameters are, and what short ones are rounded from stay, where they are that still."""
        flat = [p.detach().reshape(-1) for p in self.params]
        if self._short:
            now = torch.cat(flat)
            self._w.copy_(torch.where(self._w.to(now.dtype) == now, self._w, now))
        else:
            torch.cat(flat, out=self._w)

    def finish(self, *, moves: bool) -> None:
        """Let the parameters be the consensus of the shards that have reported, if they are to move at all."""
        if moves:
            self.rule.update(Update(self._total(), self._w, 0.0, self._layout, self._w), self._w[:0])
            heard = sorted(self._heard)
            torch._foreach_copy_([self.params[i].detach() for i in heard], [self._out[i] for i in heard])
        self._tree.clear()
        self._heard.clear()

    def _total(self) -> Message:
        first, *more = self._tree.nodes().values()  # several where not all shards have reported
        for row in more:
            first = first + row
        return self._rows.split(first)


def reports(state: State, shards: int) -> tuple[int, ...]:
    """How many reports of each shard a parameter has behind it."""
    return tuple(map(int, state["step"].tolist())) if "step" in state else (0,) * shards


class _Drawn:
    """A mini-batch whose gradient is known."""

    def __init__(self, gradient: torch.Tensor) -> None:
        self._gradient = gradient

    def gradient(self, point: torch.Tensor, term: object = None) -> torch.Tensor:
        return self._gradient

    def curvature(self, point: torch.Tensor) -> Any:
        """Nothing: the identity does not look."""
        return None

    def features(self, point: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError
