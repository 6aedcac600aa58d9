"""Ctrl-C and SIGTERM: the first asks the run to stop after the round under way, the second stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class StopRequests:
    """Catches SIGINT and SIGTERM while a run is going; calling it tells whether one came.

    Outside the main thread signals cannot be caught, and none will be seen.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._old: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether the user asked to stop."""
        return self._asked.is_set()

    def arm(self) -> None:
        """Install the handlers; once more after ray.init, which puts its own in place of SIGTERM's."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.signal(number, self._handle)
                self._old.setdefault(number, before)

    def __enter__(self) -> Self:
        self.arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked.is_set():
            raise KeyboardInterrupt
        self._asked.set()
