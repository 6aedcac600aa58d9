"""Reads the configuration file, and checks its keys before anything starts."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pisa_ray import checks
from pisa_ray.cli.data import making
from pisa_ray.errors import ConfigError
from pisa_ray.fields import every_key
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.data import SPLITS, absolute, is_local
from pisa_ray.trainer.model import ModelSection
from pisa_ray.trainer.trust import unnamed
from pisa_ray.trainer.yaml_text import parse

#: Where the keys of this file are in one that has it as its base.
IN_BASE = {(top := key.partition(".")[0]): f"base.{top}" for key in every_key(Config)}


def load(path: Path, settings: list[str] | None = None) -> Config:
    """Read a configuration file.

    Args:
        path: A YAML file; data paths in it are relative to its folder.
        settings: Overrides as "key.path=value", values in YAML.

    Returns:
        The configuration, with data paths made absolute.

    Raises:
        ConfigError: If something is wrong; it names the first, in one sentence.
    """
    return checked(read(path, settings), path.resolve().parent)


def read(path: Path, settings: list[str] | None = None) -> dict[str, Any]:
    """Read the values of a YAML file, with overrides as in `load`, without checking them.

    Raises:
        ConfigError: If there is no such file, it is not YAML, or an override is not `key.path=value`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): give the path of a YAML file.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8: give the path of a YAML file.") from error
    try:
        values = parse(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings: it should be a list of `key: value` lines.")
    for setting in settings or ():
        override(values, setting)
    return values


def checked(values: dict[str, Any], base: Path) -> Config:
    """Make a configuration of a file's values, and check it as far as is possible without data and model.

    Args:
        values: The values of the file.
        base: The folder that data paths are relative to.

    Returns:
        The configuration, with data paths made absolute.

    Raises:
        ConfigError: If something is wrong; it names the first, in one sentence.
    """
    for key, what in unnamed(values):
        raise ConfigError(
            f"{key} was {what[1:-1]} when the run was begun in Python, which no file can name: say it by "
            f"--set {key}=..., or go on in Python, by PisaTrainer.restore."
        )
    config: Config = Config.read(values, "")
    changes: dict[str, Any] = {
        "data": replace(config.data, **{name: absolute(getattr(config.data, name), base) for name in SPLITS})
    }
    if config.asynchronous is not None and config.asynchronous.replay is not None:
        place = str((base / config.asynchronous.replay).resolve())
        changes["asynchronous"] = replace(config.asynchronous, replay=place)
    model = section(config)
    if model.weights is not None:
        changes["model"] = replace(model, weights=str((base / model.weights).resolve()))
    return config.changed(**changes)


def check_places(config: Config) -> None:
    """Refuse a configuration that names files which do not exist.

    Raises:
        ConfigError: If one does not exist.
    """
    for name, place in missing(config):
        raise ConfigError(
            f"data.{name} is {place!r}, but there is no such file or folder: give a path relative to the configuration "
            f"file, or an absolute one{making(place)}."
        )
    section(config).check_place()


def missing(config: Config) -> Iterator[tuple[str, str]]:
    """Yield each local path, or pattern, of the data that does not exist, with its key."""
    for name in SPLITS:
        given = getattr(config.data, name)
        for place in given if isinstance(given, list | tuple) else [given]:
            if is_local(place) and not there(place) and not glob.glob(place):
                yield name, place


def section(config: Config) -> ModelSection:
    """Return the model of a configuration that was read from a file."""
    assert isinstance(config.model, ModelSection)  # noqa: S101  (for the type checker)
    return config.model


def there(path: str) -> bool:
    """Return whether a file or folder exists, for any text."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def override(values: dict[str, Any], setting: str) -> None:
    """Override a file's values by a setting of `--set`.

    Raises:
        ConfigError: If it is not `key.path=value`.
    """
    key, equals, text = setting.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"--set {setting} is not a setting: write --set key.path=value.")
    try:
        value = parse(text)
    except ValueError as error:
        raise ConfigError(f"--set {setting}: the value is not valid YAML ({error}).") from error
    put(values, key.strip(), value, f"--set {key}")


def put(values: dict[str, Any], key: str, value: Any, said: str) -> None:
    """Put a value in its place in a file's values, and make missing sections.

    Args:
        values: The values of the file, which are changed in place.
        key: The dotted key; a name with dots, such as that of a group of parameters, is recognised if it exists.
        value: The value.
        said: The beginning of a message.

    Raises:
        ConfigError: If the value would lie in something that is not a section.
    """
    above: list[str] = []
    while True:
        there = [name for name in values if isinstance(name, str) and (key == name or key.startswith(f"{name}."))]
        name = max(there, key=len, default=key.partition(".")[0])
        if key == name or (above[-1:] == ["groups"] and not there):
            values[key] = value
            if not there and above[-1:] == ["groups"] and "rest" in values:  # the rest must be the last group
                values["rest"] = values.pop("rest")
            return
        key = key[len(name) + 1 :]
        below = values.get(name)
        if isinstance(below, str) and (name in _NAMED or above[-1:] == ["groups"]):  # the name of a kind
            below = {"kind": below}
        elif below is None:  # the section is absent, or all its keys are commented out
            below = {}
        if not isinstance(below, dict):
            place = ".".join([*above, name])
            raise ConfigError(f"{said}: {place} is {checks.shown(below)} and has no keys of its own.")
        values[name] = below
        above.append(name)
        values = below


#: Sections for which the name of a kind may stand.
_NAMED = ("algorithm", "sigma_schedule", "partition", "robust", "distort", "rest", "preconditioner", "second_moment")
