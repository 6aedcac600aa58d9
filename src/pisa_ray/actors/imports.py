"""From where Ray's processes import: what the driver can, in no other order."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ray.job_config import JobConfig


class _NoCurrentFolder(JobConfig):
    """Ray puts the driver's current folder first on its processes' path, but where a working directory is uploaded."""

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def job_config() -> JobConfig:
    """For ray.init: its processes import from the current folder only if this process does.

    Else a file of the user's that is named as one of a library's modules, say queue.py, would be imported instead.
    """
    if os.getcwd() in map(os.path.abspath, sys.path):
        return JobConfig()
    script = os.path.dirname(os.path.realpath(sys.argv[0]))
    return _NoCurrentFolder(_py_driver_sys_path=[script] if script in sys.path else [])


def import_from(path: Sequence[str]) -> None:
    """Let a process import what the driver can: the user's own modules, where they lie at the same place."""
    sys.path.extend(folder for folder in path if folder not in sys.path)
