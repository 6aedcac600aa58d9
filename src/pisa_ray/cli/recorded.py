"""What a run of pisa-ray train began with, from its run directory, which need not be one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pisa_ray.cli.config import checked
from pisa_ray.cli.factories import check_installed
from pisa_ray.cli.train import job_arguments
from pisa_ray.trainer.prepare import Prepared, prepare


def made_by_train(recorded: dict[str, Any]) -> bool:
    """Whether a config.yaml is that of pisa-ray train, and not PisaTrainer's own description of its arguments."""
    data = recorded.get("data")
    return isinstance(data, dict) and "dataset" in data


def prepared(recorded: dict[str, Any], run_dir: Path, *, trust: bool) -> Prepared:
    """What a run began with; weights that it started from need not exist.

    Args:
        recorded: Its config.yaml.
        run_dir: Its directory.
        trust: Whether code may be run that config.yaml names and that is of no installed package.

    Raises:
        ConfigError: It names such code, or something that it names is not there.
    """
    config = checked(recorded, run_dir)
    if not trust:
        for key, reference in (("model.factory", config.model.factory), ("data.transform", config.data.transform)):
            if reference is not None:
                check_installed(reference, key, run_dir)
    config.model.weights = None
    arguments = job_arguments(config)
    threads = arguments.pop("threads_per_worker")
    return prepare(**arguments, threads=threads)
