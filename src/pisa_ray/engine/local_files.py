"""Reads and writes files in folders where others may write, too: whole or not at all, and never through a link."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Flags that keep `os.open` from waiting if a pipe is in the place of a file.
_THERE = os.O_NONBLOCK | os.O_CLOEXEC


def read_file(path: Path, most: int | None = None) -> bytes:
    """Return a file's content.

    Args:
        path: The file.
        most: The most bytes that it may have; None: any number.

    Raises:
        OSError: If it cannot be read, is larger, or is not a regular file.
    """
    handle = os.open(path, os.O_RDONLY | _THERE)
    try:
        _check_regular(os.fstat(handle).st_mode, path)
        if most is not None and os.fstat(handle).st_size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    except OSError:
        os.close(handle)
        raise
    with open(handle, "rb") as file:
        return file.read()


def write_file(path: Path, data: bytes) -> None:
    """Write a file for good, whole or not at all. A link in its place is replaced, and its target is not touched.

    Raises:
        OSError: If it cannot be written.
    """
    with new_file(path) as file:
        file.write(data)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name at the end, when it is on the disk, as with `write_file`.

    Raises:
        OSError: If it cannot be written.
    """
    if os.path.lexists(path) and not path.is_symlink():
        _check_regular(path.stat().st_mode, path)
    part = _part(path)
    try:
        with open(os.open(part, _NEW, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()  # frees space on a full disk
        raise
    sync(path.parent)


def append(path: Path, text: str) -> None:
    """Append text to a file, all of it or nothing.

    Raises:
        OSError: If it cannot be written, or is a link or not a regular file.
    """
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | _THERE, 0o666)
    try:
        _check_regular(os.fstat(handle).st_mode, path)
        size, data = os.fstat(handle).st_size, text.encode()
        try:
            while data:
                data = data[os.write(handle, data) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make a folder that gets its name at the end and replaces what has that name.

    Raises:
        OSError: If it cannot be written.
    """
    part = _part(path)
    part.mkdir()
    try:
        yield part
        _remove(path)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def local_size(path: Path) -> int | None:
    """Return the number of bytes of a file, or None if there is no such file."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def make_folder(path: Path) -> None:
    """Make a folder, with its parents, unless it exists.

    Raises:
        OSError: If it cannot be made, or a link is in its place.
    """
    if path.is_symlink():
        raise OSError(f"{path} is a symbolic link, and nothing is written through one")
    path.mkdir(parents=True, exist_ok=True)
    sync(path.parent)


def local_folders(path: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without links; none if it is a link or missing."""
    if path.is_symlink():
        return []
    try:
        with os.scandir(path) as found:
            return sorted(entry.name for entry in found if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def set_aside(path: Path) -> Path:
    """Rename whatever is at a path, and return its new path beside the old one.

    Raises:
        OSError: If it cannot be renamed.
    """
    number, aside = 1, path.with_name(f"{path.name}.damaged")
    while os.path.lexists(aside):
        number, aside = number + 1, path.with_name(f"{path.name}.damaged-{number + 1}")
    path.rename(aside)
    return aside


def clear_parts(folder: Path, names: tuple[str, ...]) -> None:
    """Remove half-written files that killed processes have left; to be called while none is being written."""
    for name in names:
        for part in folder.glob(f".????????.{name}.part"):
            with suppress(OSError):
                _remove(part)


def sync(folder: Path) -> None:
    """Make the names in a folder permanent, if the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _part(path: Path) -> Path:
    return path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}.part")


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it exists; the target of a link is not touched."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_regular(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
