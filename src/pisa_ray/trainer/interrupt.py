"""Signals that ask a run to stop: the first one after the round under way, the second at once."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

#: Ctrl-C and the request to end; and what closed terminals and schedulers send, which others may have a use for.
_OURS, _SHARED = (signal.SIGINT, signal.SIGTERM), (signal.SIGHUP, signal.SIGUSR1)

#: Seconds within which a signal that comes twice is one: `timeout`, for one, sends it to a process and to its group.
TWICE = 0.5


class StopRequests:
    """Catches SIGINT, SIGTERM, SIGHUP and SIGUSR1 while a run is going; calling it tells whether one came.

    SIGHUP and SIGUSR1 are left alone where they are ignored (`nohup`) or handled already. Outside the main thread
    signals cannot be caught, and none will be seen.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._first: tuple[int, float] | None = None
        self._old: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether the user asked to stop."""
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
    """Whether nobody handles a signal, or we do."""
    return handler == signal.SIG_DFL or getattr(handler, "__func__", None) is StopRequests._handle
