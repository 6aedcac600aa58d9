"""What a run was started with, as plain values: written to config.yaml, compared on resume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

from pisa_ray.checks import plain
from pisa_ray.engine.json_text import is_count
from pisa_ray.errors import ConfigError

#: What may change when a run is resumed: it does not enter the result, or only prolongs it.
FREE = (
    "name",
    "workers",
    "cpus_per_worker",
    "compiled",
    "gpus_per_worker",
    "worker_labels",
    "patience",
    "frozen_after",
    "exact",
    "ray",
    "checkpoint",
    "evaluate_every",
    "exact",
    "max_failures",
    "stop",
    "rounds",
)

#: What must not, though it is part of a section that may.
FIXED = ("checkpoint.storage",)

#: Where data are: what they are is known by their content.
PLACES = ("data.train", "data.test", "data.validation")

#: Longer lists are named only.
LISTED = 100


def describe(value: Any) -> Any:
    """A value as YAML can hold it: dataclasses by type and fields, other objects by their names."""
    value = plain(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__, **{f.name: describe(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    if hasattr(value, "tolist") and value.ndim == 1:  # an array or a tensor
        value = value.tolist() if len(value) <= LISTED else list(value)
    if isinstance(value, list | tuple) and len(value) <= LISTED:
        return [describe(v) for v in value]
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def check_resumable(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to resume a run with other settings than it was started with.

    Raises:
        ConfigError: Names the first setting that differs and may not.
    """
    if missing := [key for key in ("rounds", "seed") if key in new and key not in old]:
        raise ConfigError(f"config.yaml of the run is damaged: it has no {missing[0]}: put a copy of the file back.")
    before, now = settings(old), settings(new)
    for key in in_order({*before, *now}):
        if before.get(key) != now.get(key):
            raise ConfigError(
                f"the run was started with {key} = {before.get(key)!r}, not {now.get(key)!r}: "
                "resume with the same value, or start a new run in another folder."
            )
    if not is_count(rounds := old.get("rounds", 0)):
        raise ConfigError(f"config.yaml of the run is damaged: rounds is {rounds!r}: put a copy of the file back.")
    if new.get("rounds", 0) < rounds:
        raise ConfigError(f"rounds is {new['rounds']}, but the run was started with {rounds}: it can only grow.")


def in_order(keys: Iterable[str]) -> list[str]:
    """Keys sorted, kinds first: where a kind is another, so is all that follows."""
    return sorted(
        keys, key=lambda key: (not key.endswith(".kind"), key.count(".") if key.endswith(".kind") else 0, key)
    )


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration must stay as it is for the whole run, by dotted key."""
    found = {key: value for key, value in _flat(config) if key in FIXED or key.split(".")[0] not in FREE}
    return {key: value for key, value in found.items() if not _is_place(key, value)}


def check_data(before: object, now: Mapping[str, str | None], remedy: str) -> None:
    """Refuse data whose content is not what a run was started with.

    Args:
        before: What partition.json says of them: fingerprints by "train", "validation" and "test".
        now: The fingerprints of those that there are.
        remedy: What to do about it, as the rest of a sentence.

    Raises:
        ConfigError: Names the first that differs.
    """
    if not isinstance(before, Mapping):
        return  # the file is damaged, or of another time
    for key, fingerprint in now.items():
        if before.get(key) != fingerprint:
            raise ConfigError(f"data.{key} does not hold what the run was started with: {remedy}")


def _is_place(key: str, value: Any) -> bool:
    """Whether it says where data are; a number is a share of them."""
    return key.startswith(PLACES) and (value is None or not isinstance(value, int | float))


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if prefix == "algorithm.groups.":  # a parameter follows the first that it is one of
            yield "algorithm.groups", ", ".join(value)
        for key, item in value.items():
            yield from _flat(item, f"{prefix}{key}.")
    else:
        yield prefix.rstrip("."), value
