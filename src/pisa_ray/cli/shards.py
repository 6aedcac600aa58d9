"""Asking a run that is going on to let a shard leave its problem, or new data join it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pisa_ray.cli.config import checked
from pisa_ray.cli.recorded import prepared, unnamed
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.changes import Asked, Changes
from pisa_ray.trainer.run_directory import RunDirectory


def ask(run_dir: Path, asked: Asked, *, trust: bool = False) -> RunDirectory:
    """Leave word for the driver of a run, after what can be known here has been looked at.

    Args:
        run_dir: The run directory.
        asked: What is asked for.
        trust: Whether code may be run that the directory names and that is of no installed package.

    Returns:
        The run directory.

    Raises:
        ConfigError: If no run is going on there, or it cannot be changed in this way.
    """
    directory = RunDirectory(run_dir)
    recorded = directory.config_while_running()
    if not any(unnamed(recorded)):  # else the run itself will say what cannot be
        config = checked(recorded, directory.path)
        replaying = config.asynchronous is not None and config.asynchronous.replay is not None
        changes = Changes(prepared(recorded, directory.path, trust=trust), replaying=replaying)
        changes.settle(changes.again(directory.records.changes()), [])
        for waiting in directory.requests.asked_shards():
            with suppress(ConfigError):  # the run will say so
                changes.ask(waiting)
        changes.ask(asked)
    directory.requests.ask_shards(asked)
    return directory
