"""The lock of a run directory, which admits one driver at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import Timeout, UnixFileLock

from pisa_ray.engine.local_files import read_file
from pisa_ray.errors import ConfigError

#: Seconds for which `hold` tries, as `is_held` takes the lock for a moment.
TIMEOUT = 0.2

#: Errors of file systems without locks, where other drivers are not kept out.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


class RunLock:
    """Keeps other drivers out of a folder on a local disk, and most shared ones, until the process ends.

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / ".lock"
        self._ours = False

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other drivers out for a while; folders that are made for the lock and stay empty are removed again.

        Raises:
            ConfigError: If another driver is at work here; nothing is changed then.
        """
        made = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        lock = UnixFileLock(self._file, TIMEOUT, poll_interval=0.01, fallback_to_soft=False, on_acquired=self._sign)
        try:
            lock.acquire()
        except Timeout:
            raise self._taken() from None
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) not in _NO_LOCKS:
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
            lock.release()
            for folder in made:  # a run that was refused leaves nothing
                with suppress(OSError):
                    folder.rmdir()

    def is_held(self) -> bool:
        """Return whether a driver is at work here."""
        try:
            handle = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return isinstance(error, BlockingIOError)
        finally:
            os.close(handle)
        return False

    def check_free(self) -> None:
        """Refuse a folder in which another driver is at work.

        Raises:
            ConfigError: If another driver is at work; it names the process.
        """
        if not self._ours and self.is_held():
            raise self._taken()

    def _sign(self, handle: int) -> None:
        """Write this process into the lock file, unless the file was removed meanwhile by a driver that ended."""
        if not os.path.samestat(os.fstat(handle), self._file.lstat()):
            raise Timeout(str(self._file))
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()} {os.uname().nodename}".encode())

    def _taken(self) -> ConfigError:
        pid, node = "unknown", ""
        with suppress(OSError, ValueError):
            pid, _, node = read_file(self._file, 1000).decode().partition(" ")
        where = f" on {node}" if node and node != os.uname().nodename else ""
        return ConfigError(
            f"{self._folder} is in use by the run of process {pid}{where}: wait until it ends, stop it, or use another "
            "run_config."
        )
