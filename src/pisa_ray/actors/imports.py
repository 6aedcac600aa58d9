"""The import path of Ray's processes: that of the driver, in the same order."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ray.job_config import JobConfig


class _NoCurrentFolder(JobConfig):
    """Keeps Ray from putting the driver's current folder first, as if a working directory were uploaded."""

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def job_config() -> JobConfig:
    """Return a setting of ray.init by which processes import from the current folder only if this process does.

    Otherwise a file of the user's with the name of a library's module, such as queue.py, would be imported instead.
    """
    if os.getcwd() in map(os.path.abspath, sys.path):
        return JobConfig()
    script = os.path.dirname(os.path.realpath(sys.argv[0]))
    return _NoCurrentFolder(_py_driver_sys_path=[script] if script in sys.path else [])


def import_from(path: Sequence[str]) -> None:
    """Let a process import what the driver can: the user's own modules, where they lie at the same place."""
    sys.path.extend(folder for folder in path if folder not in sys.path)
