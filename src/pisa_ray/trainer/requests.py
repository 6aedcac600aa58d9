"""Requests of other processes to a run that is going on: small files in its folder, which its driver reads."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pisa_ray.engine.files import Folder
from pisa_ray.engine.json_text import is_count, parse
from pisa_ray.engine.local_files import read_file, set_aside
from pisa_ray.trainer.changes import Asked

#: The most bytes of a request.
MOST = 1 << 20


class Requests:
    """Leaves requests in a run directory, and takes them from there; other files may have their names.

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._resize = folder / "resize.json"

    def ask_resize(self, workers: int) -> None:
        """Ask the driver of the run for a number of workers."""
        Folder(str(self._folder)).write_json(self._resize.name, {"workers": workers})

    def take_resize(self) -> int | None:
        """Return the number of workers that was asked for since the last call, if any."""
        taken = self._folder / f".{uuid.uuid4().hex[:8]}.taken"
        try:
            _workers(self._resize)
            self._resize.rename(taken)  # so that a request that comes meanwhile is not lost
            return _workers(taken)
        except (OSError, ValueError):
            return None
        finally:
            with suppress(OSError):
                taken.unlink()

    def ask_shards(self, asked: Asked) -> None:
        """Ask the driver of the run to let a shard join or leave; the request stays until the change is saved."""
        name = f"shards-{time.time_ns()}-{os.getpid()}.json"
        Folder(str(self._folder)).write_json(name, {"remove": asked.remove, "add": asked.add})

    def asked_shards(self) -> list[Asked]:
        """Return the requests for shards to join or leave, the oldest first."""
        found = []
        for path in self._shards():
            with suppress(OSError, ValueError):
                found.append(_asked(path))
        return found

    def forget_shards(self, asked: Asked) -> None:
        """Remove a request that has been done or refused."""
        if asked.name is not None:
            (self._folder / asked.name).unlink(missing_ok=True)

    def set_aside_garbage(self) -> list[str]:
        """Rename files that are not requests, and return a sentence for each; for the driver only."""
        told = []
        for path, read in ((self._resize, _workers), *((path, _asked) for path in self._shards())):
            try:
                read(path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                with suppress(OSError):
                    aside = set_aside(path)
                    told.append(
                        f"{path.name} is not a request that pisa-ray has written ({reason}): it is ignored and kept "
                        f"as {aside.name}."
                    )
        return told

    def forget(self) -> None:
        """Remove all requests to a run that is to be replaced."""
        for path in (self._resize, *self._shards()):
            with suppress(OSError):
                path.unlink()

    def _shards(self) -> list[Path]:
        return sorted(self._folder.glob("shards-*.json"))


def _workers(path: Path) -> int:
    workers = _fields(path).get("workers")
    if not is_count(workers) or workers < 1:
        raise ValueError("it names no number of workers")
    return workers


def _asked(path: Path) -> Asked:
    fields = _fields(path)
    remove, add = fields.get("remove"), fields.get("add")
    if (remove is None) == (add is None) or not (is_count(remove) if add is None else isinstance(add, str)):
        raise ValueError("it names neither a shard to leave nor data to join")
    return Asked(remove, add, path.name)


def _fields(path: Path) -> Mapping[str, Any]:
    fields = parse(read_file(path, MOST))
    if not isinstance(fields, dict):
        raise ValueError("it is no JSON object")
    return fields
