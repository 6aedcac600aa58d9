"""Runs a configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pisa_ray.trainer.config import Config
from pisa_ray.trainer.data import Opened
from pisa_ray.trainer.result import Result
from pisa_ray.trainer.trainer import PisaTrainer


def train(
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    data: Opened | None = None,
) -> Result:
    """Run a configuration.

    Args:
        config: The configuration.
        out: The run directory.
        resume: Whether to resume the run there from its last checkpoint.
        overwrite: Whether to replace the run there.
        progress: Whether to show progress.
        data: The data, if they have been opened already.

    Returns:
        The result.

    Raises:
        ConfigError: If something in it cannot be used; nothing has been started then.
        PisaError: If the run failed.
    """
    arguments = config.changed(run_config=replace(config.run, path=out)).arguments()
    again: dict[str, Any] = {"resume": resume, "overwrite": overwrite}
    return PisaTrainer(**arguments, **again, progress=progress, warn=progress, opened=data).fit()
