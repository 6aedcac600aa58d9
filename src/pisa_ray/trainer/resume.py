"""Checks that a resumed run has the options that it may not change, and the data that it began with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from pisa_ray.engine.json_text import is_count
from pisa_ray.errors import ConfigError
from pisa_ray.fields import free
from pisa_ray.named import is_unnamed
from pisa_ray.trainer.config import Config


def check_resumable(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Refuse to resume a run with other settings than it was started with.

    Returns:
        A sentence for each setting that has no name, and so cannot be compared.

    Raises:
        ConfigError: If a setting differs and may not; it names the first one.
    """
    if missing := [key for key in ("rounds", "seed") if key in new and key not in old]:
        raise ConfigError(f"config.yaml of the run is damaged: it has no {missing[0]}: put a copy of the file back.")
    before, now = fixed(old), fixed(new)
    if (key := differing(before, now)) is not None:
        raise ConfigError(
            f"the run was started with {key} = {before.get(key)!r}, not {now.get(key)!r}: "
            "resume with the same value, or start a new run in another folder."
        )
    if not is_count(rounds := old.get("rounds", 0)):
        raise ConfigError(f"config.yaml of the run is damaged: rounds is {rounds!r}: put a copy of the file back.")
    if new.get("rounds", 0) < rounds:
        raise ConfigError(f"rounds is {new['rounds']}, but the run was started with {rounds}: it can only grow.")
    return [
        f"{key} has no name that config.yaml could record, so whether it is what the run was started with is not known"
        for key in in_order({*before, *now})
        if _has_no_name(before.get(key)) or _has_no_name(now.get(key))
    ]


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the first key by which two runs' fixed options differ, if any.

    What has no name, such as a lambda, cannot be compared: it may be another one. A model's parameters are checked.
    """
    unknown = {key for key in (*before, *now) if _has_no_name(before.get(key)) or _has_no_name(now.get(key))}
    if "model.factory" in unknown:
        unknown |= {key for key in (*before, *now) if key.startswith("model.")}
    keys = in_order({*before, *now} - unknown)
    return next((key for key in keys if before.get(key) != now.get(key)), None)


def _has_no_name(value: Any) -> bool:
    return any(map(is_unnamed, value if isinstance(value, list) else [value]))


def in_order(keys: Iterable[str]) -> list[str]:
    """Sort keys, kinds first: if a kind differs, so do its settings."""
    return sorted(
        keys, key=lambda key: (not key.endswith(".kind"), key.count(".") if key.endswith(".kind") else 0, key)
    )


def fixed(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a resume may not change, by dotted key.

    Args:
        recorded: The content of config.yaml.
    """
    may = free(Config)

    def is_free(key: str, value: Any) -> bool:
        keys = accumulate(key.split("."), "{}.{}".format)  # the key, and the sections that it is in
        return any(above in may and not isinstance(value, may[above]) for above in keys)

    return {key: value for key, value in _flat(recorded) if not is_free(key, value)}


def check_data(before: object, now: Mapping[str, str | None], remedy: str) -> None:
    """Refuse data whose content has changed since the run was started.

    Args:
        before: The fingerprints in partition.json, by "train", "validation" and "test".
        now: The fingerprints of the present data.
        remedy: The remedy, as the rest of a sentence.

    Raises:
        ConfigError: If data differ; it names the first.
    """
    if not isinstance(before, Mapping):
        return  # the file is damaged, or of an earlier version
    for key, fingerprint in now.items():
        if before.get(key) != fingerprint:
            raise ConfigError(f"data.{key} does not hold what the run was started with: {remedy}")


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if prefix == "algorithm.groups.":  # their order matters: a parameter belongs to the first group that it matches
            yield "algorithm.groups", ", ".join(value)
        for key, item in value.items():
            yield from _flat(item, f"{prefix}{key}.")
    else:
        yield prefix.rstrip("."), value
