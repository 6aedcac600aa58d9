"""Prepares the job of a run again from its run directory, which may be somebody else's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from pisa_ray.cli.config import checked, missing, override, section
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.prepare import Prepared, prepare
from pisa_ray.trainer.trust import check_code, references, unnamed

#: The options of `evaluate` for settings that a run in Python could not record.
_REMEDIES = {
    "model.factory": "--model package.module:function",
    "data.train": "--data PATH",
    "data.test": "--test PATH",
}


def prepared(
    recorded: Mapping[str, Any],
    run_dir: Path,
    *,
    trust: bool,
    train: str | None = None,
    test: str | None = None,
    model: str | None = None,
    settings: Sequence[str] = (),
) -> Prepared:
    """Prepare the job that a run began with; its initial weights and validation data need not exist.

    Args:
        recorded: The content of config.yaml.
        run_dir: The run directory.
        trust: Whether to run code that config.yaml names and that is not of an installed package.
        train: The path or URI of the training data now; None: it has not changed.
        test: The path or URI of the test data now; None: it has not changed.
        model: "package.module:function" that makes the model; None: the recorded model.
        settings: Overrides of config.yaml, as "key.path=value".

    Raises:
        ConfigError: If config.yaml names such code, or something that is missing or has no name.
    """
    values = _said(recorded, {"--data": ("train", train), "--test": ("test", test)}, model, settings)
    if left := list(unnamed(values)):
        were = " and ".join(f"{key} was {what[1:-1]}" for key, what in left)
        remedies = " ".join(_REMEDIES.get(key, f"--set {key}=package.module:function") for key, _ in left)
        raise ConfigError(f"{were} when the run was begun, which config.yaml cannot name: give {remedies}.")
    if not trust:
        check_code(recorded, run_dir, but={*references(recorded)} - {*references(values)})  # what the command replaced
    try:
        config = checked(values, run_dir)
    except ConfigError as error:
        raise ConfigError(f"{run_dir}/config.yaml does not say what was run: {error}") from error
    for name, place in missing(config):
        remedy = _REMEDIES.get(f"data.{name}", f"--set data.{name}=PATH")
        raise ConfigError(f"data.{name} is {place!r}, but there is no such path: give the present one by {remedy}.")
    return prepare(config.changed(model=replace(section(config), weights=None)))


def _said(
    recorded: Mapping[str, Any], moved: Mapping[str, tuple[str, str | None]], model: str | None, settings: Sequence[str]
) -> dict[str, Any]:
    """Return the content of config.yaml with the overrides of the command."""
    values: dict[str, Any] = deepcopy(dict(recorded))
    data = values.get("data")
    data = data if isinstance(data, dict) else {}
    for option, (name, now) in moved.items():
        if now is not None:
            if data.get(name) is None:
                raise ConfigError(f"{option} is {now!r}, but the run has no data.{name} that could lie elsewhere.")
            data[name] = now if "://" in now else str(Path(now).absolute())
    if not isinstance(data.get("validation"), int | float):
        data["validation"] = None
    if model is not None:
        values["model"] = {"factory": model}
    for setting in settings:
        override(values, setting)
    return values
