"""The connection to Ray: made and ended in a thread of its own, and watched, so that no run hangs with it.

Ray's calls cannot be interrupted, and its core ends the process without a word when Ray's processes on this machine are
gone. So the calls that may hang are made in a thread that can be left alone, and another one listens to the raylet.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray._private import services

from pisa_ray.actors.address import Address
from pisa_ray.actors.last_word import LastWord
from pisa_ray.actors.ray_processes import raylet_of_this_machine, vital_processes
from pisa_ray.actors.surroundings import check_surroundings
from pisa_ray.errors import ConfigError, RayLostError, StoppedWaitingError

#: Seconds that a Ray may take to start on a busy machine, a connection to one that answers, an end, and an end where
#: some of Ray is gone.
START, CONNECT, END, END_OF_RUINS = 180.0, 60.0, 10.0, 3.0

#: Seconds between looks at a stop request and at Ray's processes, and for the run to notice that Ray is gone.
LOOK, NOTICE = 0.1, 5.0

GONE = "Ray's processes on this machine are gone (killed, or out of memory); a resume goes on from the last checkpoint."


#: Called with a sentence that says what has happened.
Hanging = Callable[[str], None]


class Connection:
    """A connection to Ray.

    Args:
        address: Where Ray is.
        options: Further arguments of ray.init.
        hanging: See Watch.
    """

    def __init__(self, address: Address, options: dict[str, Any], hanging: Hanging | None = None) -> None:
        self._address, self._options, self._hanging = address, options, hanging
        self._started: list[subprocess.Popen[bytes]] = []
        self._error: BaseException | None = None
        self._up, self._end, self._down = threading.Event(), threading.Event(), threading.Event()
        self._last_word: LastWord | None = None
        self._watch: Watch | None = None

    def open(self, stop_requested: Callable[[], bool]) -> None:
        """Connect, or start a Ray.

        Raises:
            ConfigError: Ray cannot be reached or started, or takes too long.
            StoppedWaitingError: The user asked to stop.
        """
        if self._address.text == "local":
            check_surroundings()
        threading.Thread(target=self._live, name="ray", daemon=True).start()
        limit = START if self._address.text == "local" else CONNECT
        until = time.monotonic() + limit
        try:
            while not self._up.wait(LOOK):
                if stop_requested():
                    raise StoppedWaitingError("stopped while Ray was starting; nothing has begun.")
                if time.monotonic() > until:
                    raise ConfigError(f"{self._what()} within {limit:g} s: look at the machine's load and memory.")
                if ended := self._ended():
                    raise ConfigError(f"{self._what()}: its {ended} ended at once; look for too little memory.")
        except BaseException:
            self._kill()
            self._abandon()
            raise
        _take_back(signal.SIGTERM)
        if self._error is not None:
            self._kill()
        if isinstance(self._error, ConfigError):
            raise self._error
        if self._error is not None:
            reason = " ".join(str(self._error).split()) or type(self._error).__name__
            raise ConfigError(f"{self._what()}: {reason}") from self._error
        self._last_word = LastWord([process.pid for process in self._started])
        self._watch = Watch(self._started, self._hanging and self._say_and_record)

    def close(self) -> None:
        """End the connection, and the Ray that was started for it."""
        is_gone = self._watch is not None and self._watch.gone.is_set()
        if self._watch is not None:
            self._watch.close()
        self._end.set()
        ended = False
        try:
            ended = self._down.wait(END_OF_RUINS if is_gone else END)
        finally:
            if not ended:  # the last word ends Ray's processes later: if they ended now, Ray's core would end this one
                self._abandon()
            elif self._last_word is not None:
                self._last_word.close()

    def _say_and_record(self, text: str) -> None:
        if self._last_word is not None:
            self._last_word.say(f"pisa-ray: {text}")
        if self._hanging is not None:
            self._hanging(text)

    def _ended(self) -> str | None:
        """Return which process has ended that Ray cannot start without, if any."""
        for process in list(self._started):
            command: Any = process.args
            name = os.path.basename(str(command[0]))
            if name in ("gcs_server", "raylet") and process.poll() is not None:
                return name
        return None

    def _what(self) -> str:
        if self._address.text == "local":
            return "Ray cannot be started here"
        return f"{self._address.source} is {self._address.text!r}, but Ray cannot be reached there"

    def _live(self) -> None:
        # One thread for all of its life: Ray's processes end with the thread that has started them.
        try:
            self._address.probe()
            with _apart(self._started, self._end):
                ray.init(address=self._address.text, logging_level=logging.ERROR, **self._options)
        except BaseException as error:
            self._error = error
        finally:
            self._up.set()
        if self._error is None:
            self._end.wait()
            with suppress(Exception):
                ray.shutdown()
        self._down.set()

    def _abandon(self) -> None:
        """Leave the thread alone, which hangs in Ray, and end this process without Ray's leave."""
        self._end.set()
        _hanging.append(self._down)
        atexit.register(_leave, self._down, self._last_word)

    def _kill(self) -> None:
        for process in self._started:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)


class Watch:
    """Listens to Ray's processes on this machine, without which this process ends sooner or later.

    Args:
        started: Ray's processes that were started here.
        hanging: Called once if Ray is gone and nothing looks for seconds, as a call to Ray hangs; then the process is
            ended. None: the process is not ended, as it is not this run's alone.
    """

    def __init__(self, started: list[subprocess.Popen[bytes]], hanging: Hanging | None) -> None:
        self.gone, self._noticed, self._closed = threading.Event(), threading.Event(), threading.Event()
        self._hanging = hanging
        self._raylet = raylet_of_this_machine()
        self._vital = vital_processes([process.pid for process in started], self._raylet)
        if self._raylet is not None or self._vital:
            threading.Thread(target=self._listen, name="ray-watch", daemon=True).start()
        _watches.append(self)

    def look(self) -> None:
        """See whether Ray is there.

        Raises:
            RayLostError: It is gone.
        """
        if self.gone.is_set():
            self._noticed.set()
            raise RayLostError(GONE)

    def close(self) -> None:
        """Listen no more."""
        self._closed.set()
        if self in _watches:
            _watches.remove(self)

    def _listen(self) -> None:
        poll = select.poll()
        for file in [*self._vital, *([] if self._raylet is None else [self._raylet.fileno()])]:
            poll.register(file, select.POLLIN)
        while not self._closed.is_set():
            if poll.poll(LOOK * 1000):
                self.gone.set()
                break
        for file in self._vital:
            os.close(file)
        if self._raylet is not None:
            self._raylet.close()
        if self._hanging is None:
            return
        until = time.monotonic() + NOTICE
        while time.monotonic() < until:
            if self._closed.is_set() or self._noticed.wait(LOOK):
                return
        with suppress(Exception):  # the run hangs in a call to Ray that nobody will answer
            self._hanging(GONE)
        os._exit(1)


#: The watches of all open connections.
_watches: list[Watch] = []

#: How Ray starts its processes.
_POPEN = services.ConsolePopen

#: One event for each thread that hangs in Ray, which is set if the thread goes on.
_hanging: list[threading.Event] = []

#: How the process is to end, if that is known.
_status: list[int] = []


def check_ray() -> None:
    """See whether Ray's processes on this machine are there.

    Raises:
        RayLostError: They are gone.
    """
    for watch in _watches:
        watch.look()


def is_gone() -> bool:
    """Return whether Ray's processes on this machine are gone, as far as is known."""
    return any(watch.gone.is_set() for watch in _watches)


def is_hanging() -> bool:
    """Return whether a Ray hangs in this process, so that no other can be used in it."""
    return any(not down.is_set() for down in _hanging)


def ends_with(status: int) -> None:
    """Say how this process is about to end, for the case that Ray hangs in the end."""
    _status[:] = [status]


def _leave(down: threading.Event, last_word: LastWord | None) -> None:
    """End the process without waiting for what hangs in Ray."""
    ended = not _status and down.wait(END)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    if last_word is not None:
        last_word.say("")  # all has been said
    if not ended:
        os._exit(_status[0] if _status else 1)


def _take_back(number: int) -> None:
    """Have Python's handler of a signal again, which Ray's core has replaced by one that ends the process."""
    handler = signal.getsignal(number)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(number, handler)


@contextmanager
def _apart(started: list[subprocess.Popen[bytes]], given_up: threading.Event) -> Iterator[None]:
    """Have Ray's processes start in sessions of their own: a signal to this one's group is not meant for them."""

    def start(*args: Any, **kwargs: Any) -> Any:
        if given_up.is_set():
            raise RuntimeError("nobody waits for this Ray any more")
        process = _POPEN(*args, **kwargs, start_new_session=True)
        started.append(process)
        return process

    services.ConsolePopen = start  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        if services.ConsolePopen is start:  # a thread that hung may come late
            services.ConsolePopen = _POPEN  # type: ignore[misc]
