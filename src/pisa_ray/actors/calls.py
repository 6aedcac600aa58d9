"""Waiting for answers of actors, and telling a lost process from an error of the user's."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from pisa_ray.errors import PisaError

#: What Ray raises when a process or its objects are gone, by whoever's fault.
_GONE = (RayActorError, ObjectLostError, OutOfMemoryError, WorkerCrashedError)

#: Seconds that a small answer may take from where it is ready.
_FETCH = 60.0


class GoneError(Exception):
    """A call cannot be answered any more: a process, or an object that the call needed, is gone."""


def answer(reference: Any, doing: str) -> Any:
    """The small answer of a finished call.

    Raises:
        GoneError: It was lost.
        PisaError: It raised an error; user code's in its own words.
    """
    try:
        return ray.get(reference, timeout=_FETCH)
    except RayTaskError as error:
        if isinstance(error.cause, PisaError):
            raise error.cause from None
        if isinstance(error.cause, _GONE):
            raise GoneError(type(error.cause).__name__) from error
        raise PisaError(f"a worker failed to {doing}: {error.cause!r}") from error
    except _GONE as error:
        raise GoneError(type(error).__name__) from error
    except GetTimeoutError as error:
        raise GoneError(f"no answer within {_FETCH:g} s") from error


def is_ready(references: list[Any]) -> bool:
    """Whether all calls have been answered or have failed, wherever their results lie."""
    done, _ = ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
    return len(done) == len(references)
