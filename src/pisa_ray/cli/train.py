"""From a configuration to a run."""

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
        config: What to run.
        out: The run directory.
        resume: Go on from its last checkpoint.
        overwrite: Replace it.
        progress: Show progress.
        data: What config.data names, where it has been opened already.

    Returns:
        The result.

    Raises:
        ConfigError: If something in it cannot be used; nothing has been started.
        PisaError: If the run failed.
    """
    arguments = config.changed(run_config=replace(config.run, path=out)).arguments()
    again: dict[str, Any] = {"resume": resume, "overwrite": overwrite}
    return PisaTrainer(**arguments, **again, progress=progress, warn=progress, opened=data).fit()
