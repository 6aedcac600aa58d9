"""What a run of pisa-ray train began with, from its run directory, which need not be one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pisa_ray.cli.config import checked, resolve
from pisa_ray.cli.factories import check_installed
from pisa_ray.cli.train import job_arguments
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.prepare import Prepared, prepare


def made_by_train(recorded: dict[str, Any]) -> bool:
    """Whether a config.yaml is that of pisa-ray train, and not PisaTrainer's own description of its arguments."""
    data = recorded.get("data")
    return isinstance(data, dict) and "dataset" in data


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
    config = checked(recorded, run_dir)
    if not trust:
        for key, reference in (("model.factory", config.model.factory), ("data.transform", config.data.transform)):
            if reference is not None:
                check_installed(reference, key, run_dir)
    resolve(config)
    config.model.weights = None
    if isinstance(config.data.validation, str):
        config.data.validation = None
    for name, option, now in (("train", "--data", train), ("test", "--test", test)):
        if now is not None and getattr(config.data, name) is None:
            raise ConfigError(f"{option} is {now!r}, but the run has no data.{name} that could lie elsewhere.")
        place = getattr(config.data, name) if now is None else now
        if place is not None and "://" not in place and not Path(place).exists():
            raise ConfigError(
                f"data.{name} is {place!r}, but there is nothing: say where they lie now by {option} PATH."
            )
        if now is not None:
            setattr(config.data, name, now if "://" in now else str(Path(now).absolute()))
    resolve(config)  # config.yaml is, but who knows who has written in it
    arguments = job_arguments(config)
    threads = arguments.pop("threads_per_worker")
    return prepare(**arguments, threads=threads)
