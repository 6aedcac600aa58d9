"""A result.json with every row of a trial, even of one that was paused."""

from __future__ import annotations

from pathlib import Path

from ray.tune.experiment import Trial
from ray.tune.logger import JsonLoggerCallback


class History(JsonLoggerCallback):
    """A callback that writes a trial's rows to its result.json and keeps them; it replaces Tune's own writer.

    Whenever a paused trial goes on, Tune's writer (Ray 2.60) fetches the file from the storage, where it is as old as
    the last transfer. So it loses the rows since then, which are most rows of population based training.

    Example:
        >>> from ray import tune
        >>> run_config = tune.RunConfig(callbacks=[History()])
    """

    def _restore_from_remote(self, file_name: str, trial: Trial) -> None:
        if trial.local_path is None or not Path(trial.local_path, file_name).exists():  # after Tuner.restore
            super()._restore_from_remote(file_name, trial)
