"""Parameters that move together: their entries lie end to end, so that a step takes few operations for many of them."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import torch

from pisa_ray.algorithm import AdmmRule, Layout, Message, RowLayout, Task, TreeSum, Update

#: The optimizer's state of a parameter.
State = MutableMapping[str, Any]

#: The vectors of a shard's state; the optimizer's state has them by their name and the shard's number.
VECTORS = ("dual", "moment", "momentum")


def working_type(p: torch.Tensor) -> torch.dtype:
    """Return the type that a parameter's steps are computed in: its own, or float32 if that is longer."""
    return torch.float64 if p.dtype == torch.float64 else torch.float32


#: A parameter on a CPU with at least this many entries has a bucket of its own, and smaller ones share buckets of about
#: this size: that is worth the cost of a call, and fits into the processor's cache.
LARGE = 1 << 18


class Bucket:
    """Parameters of one group, type and device with the same number of reports.

    Everything that lasts is in the optimizer's state of each parameter, as views of the bucket's vectors: "step", the
    number of reports of each shard; the vectors of each shard's state; and for parameters shorter than float32
    "master", which they are rounded from. A bucket takes over this state and can be made anew from it at any time.

    Args:
        params: The parameters.
        rule: Their rule.
        shards: How many shards there are.
        states: The optimizer's state of each parameter, which gets the views.
        room: Returns a vector of a size, type and device, for a step of one bucket at a time.

    Attributes:
        rule: Their rule.
        params: The parameters.
    """

    def __init__(
        self,
        params: Sequence[torch.Tensor],
        rule: AdmmRule,
        shards: int,
        states: Sequence[State],
        room: Callable[[int, torch.Tensor], torch.Tensor],
    ) -> None:
        self.params, self.rule = list(params), rule
        first = params[0].detach()
        like = torch.empty(0, dtype=working_type(first), device=first.device)
        self._layout = Layout.of((str(k), tuple(p.shape), True) for k, p in enumerate(params))
        self._rows = RowLayout(self._layout.size, rule.penalties(self._layout).size)
        self._short = first.dtype != like.dtype
        self._alone = len(params) == 1 and not self._short and splits(first, rule) and first.is_contiguous()
        size, lasts = self._layout.size, shards > 1 or self._short
        sizes = [0 if self._alone or lasts else size, 0 if self._alone else size, 0 if shards > 1 else self._rows.width]
        self._w, self._g, self._row = torch.split(room(sum(sizes), like), sizes)
        if self._alone:  # the rule only reads the gradient, so that the parameter is moved in place
            self._w = first.view(-1)
        elif lasts:  # the vector is needed from report to report, or from step to step
            self._w = like.new_empty(size)
        self._out = list(self._layout.views(self._w).values())
        self._shards = [rule.initial_state(self._w, self._layout) for _ in range(shards)]
        self._tree = TreeSum(shards)
        self._heard: set[int] = set()
        self._before: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._alike = True  # all parameters have the same number of reports
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
        """Return whether the optimizer's state of the parameters still consists of views of this bucket."""
        own = (state.get("dual_0") is dual for state, dual in zip(states, self._duals, strict=True))
        return self._alike and all(own)

    def report(self, k: int, sigma: float) -> None:
        """Take a step of shard k on the parameters' gradients, where None counts as 0; parameters do not move yet."""
        if not k:
            self._gather()
        g, several = self._gradient(), len(self._shards) > 1
        alpha = 1 / len(self._shards)
        if several:
            self._keep(k)
        row = self._tree.buffer(self._rows.width, self._w) if several else self._row
        task = Task(self._w, lambda: _Drawn(g), sigma, self._layout, alpha=alpha)
        self.rule.step(self._shards[k], task, self._rows.split(row))
        self._rows.complete(row, alpha, self._w[:0], weighed=True)
        self._tree.add((0, k), row, owned=several)
        self._steps[:, k] += 1

    def _keep(self, k: int) -> None:
        """Remember a shard's state of the parameters without a gradient, as perhaps no shard has one."""
        for i, p in enumerate(self.params):
            if p.grad is None:
                vectors = [v for name in VECTORS if len(v := getattr(self._shards[k], name))]
                views = [list(self._layout.views(v).values())[i] for v in vectors]
                self._before.setdefault(i, []).extend((view, view.clone()) for view in (*views, self._steps[i, k]))

    def _gather(self) -> None:
        """Copy the parameters to w; keep the master copy where the parameter still equals its rounding."""
        flat = [p.detach().reshape(-1) for p in self.params]
        if self._alone:
            self._w = flat[0]
        elif self._short:
            now = torch.cat(flat)
            self._w.copy_(torch.where(self._w.to(now.dtype) == now, self._w, now))
        else:
            torch.cat(flat, out=self._w)

    def _gradient(self) -> torch.Tensor:
        """Return the gradients end to end; a rule with momenta gets a copy, as it writes to them."""
        self._heard.update(i for i, p in enumerate(self.params) if p.grad is not None)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.params]
        if self._alone:
            return gradients[0].reshape(-1)
        return torch.cat([g.reshape(-1) for g in gradients], out=self._g)

    def finish(self, *, moves: bool) -> None:
        """Set the parameters to the consensus of the shards that have reported, if they are to move at all."""
        unheard = [i for i in self._before if i not in self._heard]
        for i in unheard:
            self._before[i].append((self._out[i], self._out[i].clone()))
        if moves and self._heard:
            self.rule.update(Update(self._total(), self._w, 0.0, self._layout, self._w), self._w[:0])
            heard = sorted(self._heard)
            if not self._alone:
                torch._foreach_copy_([self.params[i].detach() for i in heard], [self._out[i] for i in heard])
        for i in unheard:
            self._alike = False
            for view, before in self._before[i]:
                view.copy_(before)
        self._tree.clear()
        self._heard.clear()
        self._before.clear()

    def _total(self) -> Message:
        first, *more = self._tree.nodes().values()  # several if some shards have not reported
        for row in more:
            first = first + row
        return self._rows.split(first)


def splits(p: torch.Tensor, rule: AdmmRule) -> bool:
    """Return whether a parameter may move by itself; on a GPU that costs calls, and NSISA batches equal shapes."""
    return p.device.type == "cpu" and not rule.momenta


def reports(state: State, shards: int) -> tuple[int, ...]:
    """Return the number of reports of each shard on a parameter."""
    return tuple(map(int, state["step"].tolist())) if "step" in state else (0,) * shards


class _Drawn:
    """A mini-batch whose gradient is known."""

    def __init__(self, gradient: torch.Tensor) -> None:
        self._gradient = gradient

    def gradient(self, point: torch.Tensor, term: object = None) -> torch.Tensor:
        return self._gradient

    def curvature(self, point: torch.Tensor) -> Any:
        """Return None, as the identity does not look at it."""
        return None

    def features(self, point: torch.Tensor) -> torch.Tensor:
        """Raise an error: only MOON asks for features, which is no optimizer here."""
        raise NotImplementedError("the gradient of an optimizer's step comes without features")
