"""The base of the optimizers: torch's interface around buckets of parameters that move by the rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, overload

import torch
from torch.optim.optimizer import ParamsT

from pisa_ray import checks
from pisa_ray.algorithm import AdmmRule, number
from pisa_ray.errors import ConfigError
from pisa_ray.optim.bucket import LARGE, Bucket, State, reports, splits, working_type
from pisa_ray.optim.param_groups import numbers_of, rule_of, settled, signature

#: The largest sigma / lr, a little below the largest number of float32.
LARGEST = 1e30

_SHARDS = checks.whole(least=1, most=10_000)
_LR = checks.number(least=0)


class AdmmOptimizer(torch.optim.Optimizer):
    """An optimizer that follows a rule; PISA, SISA, SISAD and NSISA derive from it.

    A step is a report of a shard and the consensus of a run: the dual pi of each parameter follows the gradient, and
    the parameter goes to N / (M + lam). Each group of parameters has the rule's numbers, which may be changed there at
    any time; the penalty used is sigma / lr. With lr 0 parameters do not move, but duals and moments do.

    With several shards, each with its own dual, `report()` after the backward pass of a micro-batch is a report of the
    next shard, and `step()` is their consensus.

    A parameter without a gradient (None) is left alone, with its dual and its moments; with several shards None counts
    as the gradient 0 if another shard has one. Parameters in float64 are computed in float64, and those of types
    shorter than float32 have a master copy in float32.

    Args:
        params: Parameters, or groups of them, such as `groups(module)`; see torch.optim.Optimizer.
        rule: The rule of the parameters.
        kinds: The rules of groups that have a "kind".
        lr: A factor on 1/sigma, for schedulers of learning rates; at least 0.
        shards: The largest number of reports in a step.

    Raises:
        ConfigError: If a number cannot be used.
    """

    def __init__(
        self,
        params: ParamsT,
        rule: AdmmRule,
        kinds: Mapping[str, AdmmRule] | None = None,
        *,
        lr: float = 1.0,
        shards: int = 1,
    ) -> None:
        self._numbers = {kind: numbers_of(its) for kind, its in {"": rule, **(kinds or {})}.items()}
        name = type(self).__name__
        self._forget()
        super().__init__(params, {"lr": _LR(f"{name}.lr", lr), "shards": _SHARDS(f"{name}.shards", shards)})

    def _forget(self) -> None:
        self._buckets: dict[int, _Buckets] = {}  # by group
        self._open: list[tuple[int, Bucket]] = []  # the buckets of the step under way, with their groups
        self._reported = 0
        self._spaces: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return torch's state, for copies, with the defaults of groups that may be added."""
        return {**super().__getstate__(), "_numbers": self._numbers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set torch's state, for copies and loaded states; buckets are made anew from it."""
        super().__setstate__(state)
        self._forget()

    @property
    def shards(self) -> int:
        """The largest number of reports in a step."""
        return int(self.defaults["shards"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; their duals begin at 0.

        Args:
            param_group: "params", and the numbers that differ from the optimizer's.

        Raises:
            ConfigError: If a parameter or a number cannot be used.
        """
        if self._reported:
            raise ConfigError("parameters are added between report() and step(): add them after step().")
        if not isinstance(param_group, Mapping):
            raise TypeError(f"param_group must be a dictionary with params, not {type(param_group).__name__}")
        numbers = self._numbers.get(param_group.get("kind", ""), self._numbers[""])
        super().add_param_group(settled(param_group, numbers))
        group = self.param_groups[-1]
        try:
            _LR("lr", group["lr"])
            for i, p in enumerate(group["params"]):
                _check(p, _name(group, i), matrix=group["rule"] == "nsisa")
        except ConfigError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def report(self) -> None:
        """Take the present gradients as the next shard's, and clear them; `step` makes the consensus.

        Raises:
            ConfigError: If all shards have reported already, or a gradient cannot be used.
        """
        self._report()
        self.zero_grad()

    def _report(self) -> None:
        k = self._reported
        if k >= self.shards:
            raise ConfigError(
                f"report() is called {k + 1} times before step(), but shards is {k}: call step() after {k} reports, or "
                "make the optimizer with more shards."
            )
        rates = [_LR("lr", group["lr"]) for group in self.param_groups]
        for group in self.param_groups:
            for i, p in enumerate(group["params"]):
                if p.grad is not None and p.grad.layout is not torch.strided:
                    raise ConfigError(
                        f"the gradient of {_name(group, i)} is sparse, but all methods here move every entry: use "
                        "sparse=False."
                    )
        if not k:
            self._open = [(index, b) for index, g in enumerate(self.param_groups) for b in self._made(index, g)]
        for index, bucket in self._open:
            sigma = number(bucket.rule.sigma)
            bucket.report(k, min(sigma / rates[index], LARGEST) if rates[index] else LARGEST)
            if self.shards == 1:  # so that buckets can share their space
                bucket.finish(moves=rates[index] > 0)
        self._reported += 1

    def _made(self, index: int, group: Mapping[str, Any]) -> list[Bucket]:
        """Return the buckets of a group's parameters that are to move, those of the last step if they fit."""
        numbers, several = signature(group), self.shards > 1
        with_entries = (p for p in group["params"] if p.numel())
        moving = [p for p in with_entries if p.grad is not None or (several and p.requires_grad)]
        known = self._buckets.get(index)
        if known is not None and known.fit(moving, numbers, self.state):
            return known.buckets
        rule = rule_of(group)
        parts: dict[object, list[torch.Tensor]] = {}
        entries = 0
        for p in moving:
            part: object = entries // LARGE  # small parameters together, but few enough for the processor's cache
            if not splits(p, rule):
                part = None
            elif p.numel() >= LARGE:
                part = id(p)
            else:
                entries += p.numel()
            parts.setdefault((p.device, p.dtype, reports(self.state[p], self.shards), part), []).append(p)
        buckets = [Bucket(ps, rule, self.shards, [self.state[p] for p in ps], self._space) for ps in parts.values()]
        self._buckets[index] = _Buckets(moving, numbers, buckets)
        return buckets

    def _space(self, entries: int, like: torch.Tensor) -> torch.Tensor:
        """Return a vector of some entries, which the buckets of a type and device share."""
        key = like.dtype, like.device
        if key not in self._spaces or len(self._spaces[key]) < entries:
            self._spaces[key] = like.new_empty(entries)
        return self._spaces[key][:entries]

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move the parameters to the consensus of the reports; without one, take the gradients as the first shard's.

        Args:
            closure: Computes the loss and its gradients anew.

        Returns:
            The result of the closure.

        Raises:
            ConfigError: If there are reports, and gradients that no report has taken.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self._reported:
            self._report()
        elif any(p.grad is not None for group in self.param_groups for p in group["params"]):
            raise ConfigError("step() finds gradients that no report() has taken: call report() after each backward().")
        for index, bucket in self._open if self.shards > 1 else ():
            bucket.finish(moves=self.param_groups[index]["lr"] > 0)
        self._open.clear()
        self._reported = 0
        return loss

    def state_dict(self) -> dict[str, Any]:
        """See torch.optim.Optimizer.

        Raises:
            ConfigError: If there are reports that no step has added up.
        """
        if self._reported:
            raise ConfigError("state_dict() is called between report() and step(): call it after step().")
        return super().state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the result of `state_dict`, to the bit.

        Args:
            state_dict: The state of an optimizer of this class on parameters of the same shapes in the same groups.

        Raises:
            ConfigError: If it belongs to another optimizer.
        """
        loaded: dict[str, Any] = {}

        def check(_: object, given: dict[str, Any]) -> None:  # the last hook, so that it sees what the others return
            self._check_state(given)
            loaded.update(given)

        last = self.register_load_state_dict_pre_hook(check)
        try:
            super().load_state_dict(dict(state_dict))
        finally:
            last.remove()
        params = [p for group in self.param_groups for p in group["params"]]
        for p, i in zip(params, (i for group in loaded["param_groups"] for i in group["params"]), strict=True):
            for name, value in loaded["state"].get(i, {}).items():
                if name != "step":  # torch has rounded the value to the parameter's type
                    self.state[p][name] = value.to(p.device, working_type(p))

    def _check_state(self, state_dict: Mapping[str, Any]) -> None:
        """Refuse a state that belongs to another optimizer, or to other parameters."""
        groups = state_dict["param_groups"]
        theirs = {(group.get("rule"), group.get("shards")) for group in groups}
        ours = {(group["rule"], group["shards"]) for group in self.param_groups}
        if theirs - ours:
            raise ConfigError(
                f"the state is of {_listed(theirs)}, but this optimizer has {_listed(ours)}: load it where it came "
                "from."
            )
        params = [p for group in self.param_groups for p in group["params"]]
        for p, i in zip(params, (i for group in groups for i in group["params"]), strict=False):
            values = state_dict["state"].get(i, {})
            if any(value.shape != p.shape for name, value in values.items() if name != "step"):
                raise ConfigError(
                    f"the state is of a parameter {tuple(values['dual_0'].shape)} where this optimizer has one "
                    f"{tuple(p.shape)}: make it from the same parameters in the same order."
                )


class _Buckets:
    """The buckets of a group, with the parameters and numbers that they were made of."""

    def __init__(self, params: list[torch.Tensor], numbers: tuple[Any, ...], buckets: list[Bucket]) -> None:
        self._params, self._numbers, self.buckets = params, numbers, buckets

    def fit(self, params: list[torch.Tensor], numbers: tuple[Any, ...], state: Mapping[torch.Tensor, State]) -> bool:
        """Return whether the buckets were made of these parameters and numbers, and hold their state."""
        return (
            numbers == self._numbers
            and len(params) == len(self._params)
            and all(ours is theirs for ours, theirs in zip(self._params, params, strict=True))
            and all(bucket.holds([state[p] for p in bucket.params]) for bucket in self.buckets)
        )


def _listed(kinds: set[tuple[Any, Any]]) -> str:
    return ", ".join(sorted(f"{rule or 'another optimizer'} with {shards or 1} shards" for rule, shards in kinds))


def _name(group: Mapping[str, Any], i: int) -> str:
    """Return the name of a parameter in error messages."""
    name = group["param_names"][i] if "param_names" in group else f"number {i}"
    return f"parameter {name} {tuple(group['params'][i].shape)}"


def _check(p: torch.Tensor, name: str, *, matrix: bool) -> None:
    if p.is_complex():
        raise ConfigError(
            f"{name} is complex, but all methods here are of real numbers: train torch.view_as_real(w).detach() and "
            "view it as complex."
        )
    if not p.is_floating_point() or p.dtype.itemsize < 2 or p.layout is not torch.strided:
        raise ConfigError(f"{name} is {p.dtype} ({p.layout}), but it must be a dense tensor of floating-point numbers.")
    if hasattr(p, "to_local"):
        raise ConfigError(f"{name} is a DTensor, which no method here can move: use DistributedDataParallel.")
    if matrix and p.ndim < 2:
        raise ConfigError(
            f"{name} is of a group of matrices, but has fewer than two dimensions: make it one of vectors."
        )
