"""What a run of pisa-ray train began with, from its run directory, which need not be one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pisa_ray.cli.config import checked
from pisa_ray.cli.train import job_arguments
from pisa_ray.cli.trust import check_installed
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.prepare import Prepared, prepare


def made_by_train(recorded: dict[str, Any]) -> bool:
    """Whether a config.yaml is that of pisa-ray train, and not PisaTrainer's own description of its arguments."""
    data = recorded.get("data")
    return isinstance(data, dict) and "dataset" in data


def _references(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """The functions and classes that a configuration names, by key."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _references(value, f"{path}{key}.")
        elif key in ("factory", "transform", "loss", "metrics", "kind"):
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str) and (":" in one or key in ("factory", "transform")):
                    yield f"{path}{key}", one


def prepared(
    recorded: dict[str, Any], run_dir: Path, *, trust: bool, train: str | None = None, test: str | None = None
) -> Prepared:
    """What a run began with; weights that it started from and validation data of their own need not exist.

    Args:
        recorded: Its config.yaml.
        run_dir: Its directory.
        trust: Whether code may be run that config.yaml names and that is of no installed package.
        train: Where the training data lie now, a path or URI; None: where they did.
        test: The same of the test data.

    Raises:
        ConfigError: It names such code, or something that it names is not there.
    """
    if not trust:
        for key, reference in _references(recorded):
            check_installed(reference, key, run_dir)
    config = checked(recorded, run_dir)
    config.model = replace(config.model, weights=None)
    if isinstance(config.data.validation, str):
        config.data = replace(config.data, validation=None)
    for name, option, now in (("train", "--data", train), ("test", "--test", test)):
        if now is not None and getattr(config.data, name) in (None, "digits", "digits:test"):
            raise ConfigError(f"{option} is {now!r}, but the run has no data.{name} that could lie elsewhere.")
        place = getattr(config.data, name) if now is None else now
        if place is not None and "://" not in place and not place.startswith("digits") and not Path(place).exists():
            raise ConfigError(
                f"data.{name} is {place!r}, but there is nothing: say where they lie now by {option} PATH."
            )
        if now is not None:
            moved: dict[str, Any] = {name: now if "://" in now else str(Path(now).absolute())}
            config.data = replace(config.data, **moved)
    arguments = job_arguments(config)
    threads = arguments.pop("threads_per_worker")
    return prepare(**arguments, threads=threads)
