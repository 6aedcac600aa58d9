"""Asks a run that is going on to let a shard leave its problem, or new data join it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pisa_ray.cli.config import checked
from pisa_ray.cli.recorded import prepared
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.changes import Asked, Changes
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.trust import unnamed


def ask(run_dir: Path, asked: Asked, *, trust: bool = False) -> RunDirectory:
    """Check a change as far as is possible here, and ask the driver of the run for it.

    Args:
        run_dir: The run directory.
        asked: The request.
        trust: Whether to run code that the directory names and that is not of an installed package.

    Returns:
        The run directory.

    Raises:
        ConfigError: If no run is going on there, or it cannot be changed in this way.
    """
    directory = RunDirectory(run_dir)
    recorded = directory.config_while_running()
    if not any(unnamed(recorded)):  # else only the run itself can check the request
        config = checked(recorded, directory.path)
        replaying = config.asynchronous is not None and config.asynchronous.replay is not None
        changes = Changes(prepared(recorded, directory.path, trust=trust), replaying=replaying)
        changes.settle(changes.after(directory.records.changes()), [])
        for waiting in directory.requests.asked_shards():
            with suppress(ConfigError):  # the run will refuse it
                changes.ask(waiting)
        changes.ask(asked)
    directory.requests.ask_shards(asked)
    return directory
