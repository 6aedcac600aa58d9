"""Waiting for answers of actors, and telling a lost process from an error of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray.exceptions import (
    GetTimeoutError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from pisa_ray.errors import ConfigError, PisaError, StatesLostError

#: What Ray raises when a process or its objects are gone, for whatever reason.
_GONE = (RayActorError, ObjectLostError, NodeDiedError, LocalRayletDiedError, OutOfMemoryError, WorkerCrashedError)

#: Seconds that a small answer may take from where it is ready.
_FETCH = 60.0


#: Losses in a row that are recovered from, in one attempt at something.
RECOVERIES = 100

T = TypeVar("T")


class GoneError(Exception):
    """A call cannot be answered any more: a process, or an object that the call needed, is gone.

    Args:
        why: What Ray says.
        direct: Whether the called process itself is gone, and not something that the call needed.
    """

    def __init__(self, why: str, *, direct: bool = False) -> None:
        super().__init__(why)
        self.direct = direct


def answer(reference: Any, doing: str) -> Any:
    """Return the small answer of a finished call.

    Raises:
        GoneError: The answer was lost.
        PisaError: The call raised an error; one of user code is passed on in its own words.
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
        raise GoneError(type(error).__name__, direct=isinstance(error, RayActorError)) from error
    except GetTimeoutError as error:
        raise GoneError(f"no answer within {_FETCH:g} s") from error
    except RayError as error:
        raise PisaError(f"Ray failed to have a worker {doing}: {error}") from error


def try_again(attempt: Callable[[], T], recover: Callable[[], None], too_fast: str) -> T:
    """Try something until nothing is lost on the way.

    Args:
        attempt: What is tried.
        recover: What is done after a loss, before the next attempt.
        too_fast: What cannot be done since processes die faster, for the error.

    Raises:
        StatesLostError: Something was lost at each of many attempts.
    """
    for _ in range(RECOVERIES):
        try:
            return attempt()
        except GoneError:
            recover()
    raise StatesLostError(f"processes die faster than {too_fast}.")


def sent(job: Any) -> Any:
    """Return a reference to the job, which all processes are sent.

    Raises:
        ConfigError: The job cannot be sent to another process.
        PisaError: There is no room for it in the object store.
    """
    try:
        return ray.put(job)
    except RayError as error:
        raise PisaError(f"Ray cannot hold the model and the data that this process has: {error}") from error
    except Exception as error:  # of pickling, whose errors are of any class
        raise ConfigError(
            f"the model, the loss, the metrics, the transform or the data cannot be sent to workers ({error}): leave "
            "out what belongs to this process (locks, open files, connections), or use workers 0."
        ) from error


def is_ready(references: list[Any]) -> bool:
    """Return whether all calls have been answered or have failed, wherever their results lie."""
    done, _ = ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
    return len(done) == len(references)


def how_lost(reference: Any) -> GoneError | None:
    """Return how the answer of a call was lost; None where it was not, or while there is none yet."""
    if not is_ready([reference]):
        return None
    try:
        answer(reference, "answer")
    except GoneError as error:
        return error
    except PisaError:
        return None
    return None
