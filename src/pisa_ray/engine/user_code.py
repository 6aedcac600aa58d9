"""Turns errors of the user's code (model, loss, metrics, transforms) into errors of this library."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pisa_ray.errors import ConfigError, PisaError

_OURS = (str(Path(__file__).resolve().parents[1]), str(Path(torch.__file__).parent))
_PYTHONS = sysconfig.get_path("stdlib")


def user_error(error: Exception, where: str) -> PisaError:
    """Return an error whose sentence names the part of the run and the line of the user's code.

    Args:
        error: The error, with its traceback.
        where: The part of the run, such as "shard 3 in round 7".
    """
    if isinstance(error, ConfigError):  # it would mean that nothing has begun
        return PisaError(str(error))
    if isinstance(error, PisaError):
        return error
    frame = (_theirs(error) or traceback.extract_tb(error.__traceback__))[-1]
    return PisaError(f"{where}: {type(error).__name__}: {error} (at {_place(frame)}).")


@contextmanager
def located(where: str) -> Iterator[None]:
    """Turn whatever is raised during a run into a PisaError; see user_error."""
    try:
        yield
    except Exception as error:
        raise user_error(error, where) from error


@contextmanager
def refused(what: str, remedy: str) -> Iterator[None]:
    """Turn whatever the user's code raises, even SystemExit, into a ConfigError; our own errors pass through.

    Args:
        what: The beginning of the sentence, such as "loss cannot be applied".
        remedy: The remedy.
    """
    try:
        yield
    except PisaError:
        raise
    except (Exception, SystemExit) as error:
        frames = _theirs(error)
        at = f" (at {_place(frames[-1])})" if frames else ""
        text = str(error).strip().rstrip(".:")
        raise ConfigError(f"{what}: {type(error).__name__}{text and f': {text}'}{at}; {remedy}.") from error


def _theirs(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of the user's code, without those of this library, torch and Python."""
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [frame for frame in frames if not frame.filename.startswith((*_OURS, "<"))]
    return [f for f in foreign if "-packages" in f.filename or not f.filename.startswith(_PYTHONS)]


def _place(frame: traceback.FrameSummary) -> str:
    return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
