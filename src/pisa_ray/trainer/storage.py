"""Checks, before a run begins, that its storage can be written, and leaves nothing there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyarrow import fs

from pisa_ray.engine.files import FAILURES, Folder
from pisa_ray.errors import ConfigError, PisaError


def check_storage(storage: Folder) -> None:
    """Write a file to a storage, and remove it with all folders that were made for it.

    Raises:
        ConfigError: If the storage cannot be written.
    """
    name = f"probe-{uuid.uuid4().hex[:8]}"
    try:
        with unless_empty(storage):
            storage.create()
            storage.write(name, b"to see whether it can be written")
            storage.remove(name)
    except (PisaError, *FAILURES) as error:
        raise ConfigError(
            f"the storage {storage} cannot be written ({error.__cause__ or error}): check its address, its "
            "permissions and the network, or use a local folder."
        ) from error


@contextmanager
def unless_empty(folder: Folder) -> Iterator[None]:
    """Remove, at the end, a folder and those above it if they did not exist before and are empty."""
    made = list(_missing(folder))
    try:
        yield
    finally:
        with suppress(*FAILURES):
            for path in made:
                if folder.is_local:
                    Path(path).rmdir()  # fails if it is not empty
                    continue
                if folder.filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True)):
                    break
                folder.filesystem.delete_dir(path)


def _missing(folder: Folder) -> Iterator[str]:
    """Yield the paths of a folder and of those above it, upwards, up to the first that exists."""
    path = folder.path
    with suppress(*FAILURES):
        while path.strip("/") and _is_missing(folder, path):
            yield path
            path = path.rpartition("/")[0]


def _is_missing(folder: Folder, path: str) -> bool:
    if folder.is_local:
        return not os.path.lexists(path)
    return bool(folder.filesystem.get_file_info(path).type == fs.FileType.NotFound)
