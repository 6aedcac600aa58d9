"""What other processes ask of a run that is going on: small files in its folder, which its driver looks for."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from pisa_ray.engine.files import Folder
from pisa_ray.trainer.changes import Asked


class Requests:
    """Leaves requests in a run directory, and takes them from there.

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ask_resize(self, workers: int) -> None:
        """Leave word for the driver that runs here: it should have so many workers."""
        Folder(str(self._folder)).write_json("resize.json", {"workers": workers})

    def take_resize(self) -> int | None:
        """What was asked for since the last time, if anything."""
        taken = self._folder / ".resize.json.taken"
        try:
            (self._folder / "resize.json").rename(taken)  # so that one that is asked for meanwhile is not lost
            return int(json.loads(taken.read_text())["workers"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return None  # not from us

    def ask_shards(self, asked: Asked) -> None:
        """Leave word for the driver that runs here: a shard should join or leave. It stays until that is saved."""
        name = f"shards-{time.time_ns()}-{os.getpid()}.json"
        Folder(str(self._folder)).write_json(name, {"remove": asked.remove, "add": asked.add})

    def asked_shards(self) -> list[Asked]:
        """What has been asked for, the oldest first."""
        found = []
        for path in sorted(self._folder.glob("shards-*.json")):
            try:
                word = json.loads(path.read_text(encoding="utf-8"))
                found.append(Asked(word["remove"], word["add"], path.name))
            except (ValueError, KeyError, TypeError, UnicodeDecodeError):
                path.unlink()  # not from us
        return found

    def forget_shards(self, asked: Asked) -> None:
        """It has been done, or refused."""
        if asked.name is not None:
            (self._folder / asked.name).unlink(missing_ok=True)
