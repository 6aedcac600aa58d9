"""The entries of `param_groups`: a rule by name and its numbers as plain values, which any loader takes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import astuple, fields, replace
from typing import Any

from torch import nn

from pisa_ray import algorithm, checks
from pisa_ray.algorithm import AdaGrad, Adam, Identity, Instantaneous, RMSProp
from pisa_ray.algorithm.auto import Auto
from pisa_ray.algorithm.layout import layout_of
from pisa_ray.algorithm.methods.groups import NAMED
from pisa_ray.algorithm.methods.sisa_d import EPS
from pisa_ray.errors import ConfigError

#: The rules by their names in groups.
RULES: dict[str, type[algorithm.AdmmRule]] = {
    rule.kind: rule for rule in (algorithm.PISA, algorithm.SISA, algorithm.SISAD, algorithm.NSISA)
}

#: Second moments and preconditioners by their names; a group has them as (name, numbers...).
PARTS: dict[str, Any] = {part.kind: part for part in (Adam, RMSProp, AdaGrad, Instantaneous, Identity)}

#: Numbers of methods that a group does not have, because a trainer uses them or they belong to another rule.
_LEFT_OUT = {"reset_duals", "local_steps", "rest"}

#: The names that other optimizers have for lam, second_moment and rho.
_FOREIGN = {"weight_decay": "lam", "betas": "second_moment", "momentum": "rho"}


def groups(module: nn.Module) -> list[dict[str, Any]]:
    """Group a module's trainable parameters by their kind, for any of these optimizers.

    Args:
        module: The model, with or without a wrapper such as DistributedDataParallel.

    Returns:
        Those of the groups "matrices" (of blocks), "embeddings", "heads" (the last linear layer) and "vectors" that
        have parameters. Vectors have lam 0, so that biases and scales are not drawn to 0.
    """
    slots = layout_of(module).slots
    found = []
    for kind, selects in NAMED.items():
        params = [module.get_parameter(slot.name) for slot in slots if selects(slot)]
        if params and kind != "rest":
            found.append({"params": params, "kind": kind, **({"lam": 0.0} if kind == "vectors" else {})})
    return found


def numbers_of(rule: algorithm.AdmmRule) -> dict[str, Any]:
    """Return a rule and its numbers as entries of a group.

    Raises:
        ConfigError: If no optimizer has this rule, or one of its numbers is left to the automatic start.
    """
    if type(rule) not in RULES.values():
        raise ConfigError(f"an optimizer cannot follow {checks.kind_of(rule)}: use PISA, SISA, SISAD or NSISA.")
    found: dict[str, Any] = {"rule": rule.kind}
    for key in _names(rule.kind):
        value, place = getattr(rule, key), f"{type(rule).__name__}.{key}"
        if key == "eps" and isinstance(value, Auto):
            value = EPS
        if isinstance(value, Auto):
            raise ConfigError(
                f"{place} is Auto(), but an optimizer has no automatic start: give a number, or train with PisaTrainer."
            )
        found[key] = _plain(place, value)
    return found


def settled(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user's group with all numbers of its rule, checked and as plain values.

    Args:
        group: The user's group.
        defaults: The result of `numbers_of` for its rule.

    Raises:
        ConfigError: If a number cannot be used.
    """
    for name, ours in _FOREIGN.items():
        if group.get(name):  # 0 has no effect
            own = {("nsisa", "momentum"): "mu", ("sisa_d", "betas"): "beta"}.get((defaults["rule"], name), ours)
            raise ConfigError(f"a group of parameters has {name}, but no method here does: give {own} instead.")
    if "shards" in group:
        raise ConfigError(
            "a group of parameters has shards, but these are the whole optimizer's: leave them out there."
        )
    given: dict[str, Any] = {name: _made(group[name]) for name in _names(defaults["rule"]) if name in group}
    left = {name: value for name, value in group.items() if name not in _FOREIGN}
    return {**left, **numbers_of(replace(rule_of(defaults), **given))}


def signature(group: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the rule and numbers of a group as a tuple, to compare groups by."""
    return group["rule"], *((name, _frozen(group[name])) for name in _names(group["rule"]))


def rule_of(group: Mapping[str, Any]) -> algorithm.AdmmRule:
    """Make the rule that a group describes.

    Raises:
        ConfigError: If a number cannot be used.
    """
    left_out: dict[str, Any] = {"rest": None} if group["rule"] == "nsisa" else {}
    return RULES[group["rule"]](**left_out, **{name: _made(group[name]) for name in _names(group["rule"])})


@functools.cache
def _names(rule: str) -> tuple[str, ...]:
    left_out = _LEFT_OUT | {"second_moment"} if rule == "nsisa" else _LEFT_OUT  # it belongs to the rest
    return tuple(field.name for field in fields(RULES[rule]) if field.name not in left_out)


def _plain(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value) not in PARTS.values():
        usable = "Identity()" if name.endswith("preconditioner") else "Adam(), RMSProp(), AdaGrad() or Instantaneous()"
        raise ConfigError(f"{name} is {checks.shown(value)}, but an optimizer has only gradients: use {usable}.")
    return (value.kind, *astuple(value))


def _made(value: Any) -> Any:
    return PARTS[value[0]](*value[1:]) if isinstance(value, tuple | list) and value and value[0] in PARTS else value


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else checks.plain(value)
