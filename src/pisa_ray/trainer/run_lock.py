"""The lock of a run directory: one driver at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pisa_ray.engine.local_files import read_file
from pisa_ray.errors import ConfigError

#: Seconds for which a lock is tried: `is_held` holds it for a moment.
PATIENCE = 0.2

#: A link in the lock's place is not followed, and a pipe not waited for.
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class RunLock:
    """Keeps other drivers out of a folder; ends with the process, however that ends. Local disks, and most shared ones.

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / ".lock"
        self._ours = False

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other drivers out; a folder that was made for it and stays empty is removed again.

        Raises:
            ConfigError: Another driver is at work here; nothing has been touched.
        """
        made = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = self._locked()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the run directory {self._folder} cannot be written ({error}): use another run_config."
            ) from error
        self._ours = True
        try:
            yield
        finally:
            self._ours = False
            with suppress(OSError):
                self._file.unlink()
            os.close(handle)
            for folder in made:  # a run that was refused leaves nothing
                with suppress(OSError):
                    folder.rmdir()

    def is_held(self) -> bool:
        """Whether a driver is at work here."""
        try:
            handle = os.open(self._file, os.O_RDONLY | _FLAGS)
        except OSError:
            return False
        try:
            return not _flock(handle, fcntl.LOCK_SH)
        finally:
            os.close(handle)

    def check_free(self) -> None:
        """Refuse a folder in which another driver is at work.

        Raises:
            ConfigError: Says whose process it is.
        """
        if not self._ours and self.is_held():
            raise self._taken()

    def _locked(self) -> int:
        """A handle that holds the lock on the file that is there now, and is not handed on to other programs."""
        until = time.monotonic() + PATIENCE
        while True:
            handle = os.open(self._file, os.O_RDWR | os.O_CREAT | _FLAGS, 0o666)
            if _flock(handle, fcntl.LOCK_EX) and self._is_current(handle):
                os.truncate(handle, 0)
                os.write(handle, f"{os.getpid()} {os.uname().nodename}".encode())
                return handle
            os.close(handle)
            if time.monotonic() > until:
                raise self._taken()
            time.sleep(0.01)

    def _is_current(self, handle: int) -> bool:
        """Whether an open file is the one that has the lock's name now; a driver that ends takes the name away."""
        try:
            return os.path.samestat(os.fstat(handle), self._file.stat())
        except FileNotFoundError:
            return False

    def _taken(self) -> ConfigError:
        pid, node = "unknown", ""
        with suppress(OSError, ValueError):
            pid, _, node = read_file(self._file, 1000).decode().partition(" ")
        where = f" on {node}" if node and node != os.uname().nodename else ""
        return ConfigError(
            f"{self._folder} is in use by the run of process {pid}{where}: wait until it ends, stop it, or use another "
            "run_config."
        )


def _flock(handle: int, how: int) -> bool:
    """Try to lock an open file; False if another has it. Where the file system has no locks nobody is kept out."""
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
