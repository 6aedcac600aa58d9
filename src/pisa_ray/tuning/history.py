"""result.json with every row of a trial, also of one that was paused."""

from __future__ import annotations

from pathlib import Path

from ray.tune.experiment import Trial
from ray.tune.logger import JsonLoggerCallback


class History(JsonLoggerCallback):
    """Writes a trial's rows to its result.json and keeps them; takes the place of Tune's own writer.

    That one (Ray 2.60) fetches the file from the storage, where it is as old as the last transfer, whenever a paused
    trial goes on, and so loses what was written since: most rows of population based training.

    Example:
        >>> from ray import tune
        >>> run_config = tune.RunConfig(callbacks=[History()])
    """

    def _restore_from_remote(self, file_name: str, trial: Trial) -> None:
        if trial.local_path is None or not Path(trial.local_path, file_name).exists():  # as after Tuner.restore
            super()._restore_from_remote(file_name, trial)
