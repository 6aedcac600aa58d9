"""What Ray needs of the machine that it is started on; without it, Ray waits for ever or dies."""

from __future__ import annotations

import os
import pwd
import resource
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pisa_ray.errors import ConfigError

#: Bytes of a socket's path, and open files that each of Ray's processes needs.
LONGEST_SOCKET, FEWEST_FILES = 107, 512


def check_surroundings(environ: Mapping[str, str] = os.environ) -> None:
    """See whether a Ray can be started here.

    Args:
        environ: The environment that Ray will be started in.

    Raises:
        ConfigError: The home folder or the temporary one cannot be used, or too few files can be open.
    """
    _check_home(environ)
    _check_temporary(environ)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # Ray raises the soft limit to this one
    if limit != resource.RLIM_INFINITY and limit < FEWEST_FILES:
        raise ConfigError(
            f"a process may have {limit} open files here, but Ray needs {FEWEST_FILES}: raise the limit (`ulimit -Hn`) "
            "or use workers 0, which needs no Ray."
        )


def _check_home(environ: Mapping[str, str]) -> None:
    """See whether Ray can write its token to ~/.ray, where it needs one and is given none."""
    if environ.get("RAY_AUTH_MODE", "token").lower() != "token" or environ.get("RAY_AUTH_TOKEN"):
        return
    if environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    home = environ.get("HOME") if "HOME" in environ else _home_of_user()
    if home is None:
        raise ConfigError(
            f"HOME is not set, and user {os.getuid()} has no home, but Ray writes ~/.ray/auth_token: set HOME to a "
            "folder that can be written."
        )
    folder = Path(home or "/") / ".ray"
    try:
        if (folder / "auth_token").stat().st_size and os.access(folder / "auth_token", os.R_OK):
            return
    except (OSError, ValueError):
        pass
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _try(folder)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"HOME is {home!r}, but Ray must write .ray/auth_token there ({_why(error)}): set HOME to a folder that "
            "can be written."
        ) from error


def _home_of_user() -> str | None:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # as in a container that runs as any user
        return None


def _check_temporary(environ: Mapping[str, str]) -> None:
    """See whether Ray can keep its sockets and logs in the temporary folder."""
    names = ["RAY_TMPDIR", *(["TMPDIR"] if sys.platform.startswith("linux") else [])]
    name = next((name for name in names if name in environ), None)
    if name is None:
        source, folder = "the temporary folder", tempfile.gettempdir()
    else:
        source, folder = name, environ[name]
    try:
        _try(Path(folder))
        if (Path(folder) / "ray").exists():
            _try(Path(folder) / "ray")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{source} is {folder!r}, but Ray must write there ({_why(error)}): set RAY_TMPDIR to a folder that is "
            "there and can be written, such as /tmp."
        ) from error
    session = f"session_{datetime.now(UTC):%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}"
    longest = len(os.fsencode(os.path.join(os.path.abspath(folder), "ray", session, "sockets", "plasma_store")))
    if longest > LONGEST_SOCKET:
        raise ConfigError(
            f"{source} is {folder!r}, which is {longest - LONGEST_SOCKET} characters too long for the sockets that Ray "
            "keeps there: set RAY_TMPDIR to a shorter one, such as /tmp."
        )


def _try(folder: Path) -> None:
    """Write into a folder.

    Raises:
        OSError: It is missing, or cannot be written. os.access is not right for all file systems.
    """
    with tempfile.TemporaryFile(dir=folder):
        pass


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
