"""Errors from code that is not ours: the model, the loss, metrics, transforms."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

from pisa_ray.errors import PisaError

_OURS = (str(Path(__file__).resolve().parents[1]), str(Path(torch.__file__).parent))


def user_error(error: Exception, where: str) -> PisaError:
    """Say in one sentence what was raised, for which part of the run, and at which line of the user's code.

    Args:
        error: What was caught, with its traceback.
        where: Such as "shard 3 in round 7".
    """
    if isinstance(error, PisaError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_OURS)]
    frame = (theirs or frames)[-1]
    at = f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
    return PisaError(f"{where}: {type(error).__name__}: {error} (at {at}).")
