"""Signals that stop a run: the first one after the present round, the second one at once."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

#: Signals that are always caught, and those of closed terminals and schedulers, which others may use.
_OURS, _SHARED = (signal.SIGINT, signal.SIGTERM), (signal.SIGHUP, signal.SIGUSR1)

#: A signal that is repeated within so many seconds counts once: `timeout` sends it to a process and to its group.
TWICE = 0.5


class StopRequests:
    """Catches SIGINT, SIGTERM, SIGHUP and SIGUSR1 during a run; a call returns whether one came.

    SIGHUP and SIGUSR1 are left alone if they are ignored (`nohup`) or handled already. Outside the main thread no
    signal can be caught.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._first: tuple[int, float] | None = None
        self._old: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Return whether the user asked to stop."""
        return self._asked.is_set()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            unused = [number for number in _SHARED if _is_free(signal.getsignal(number))]
            self._old = {number: signal.signal(number, self._handle) for number in (*_OURS, *unused)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = number, now
            self._asked.set()
        elif number != self._first[0] or now - self._first[1] > TWICE:
            raise KeyboardInterrupt


def _is_free(handler: Any) -> bool:
    """Return whether a signal has its default handler, or that of this module."""
    return handler == signal.SIG_DFL or getattr(handler, "__func__", None) is StopRequests._handle
