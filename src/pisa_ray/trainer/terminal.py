"""What people read on standard output and standard error: nothing in it moves a cursor, and no run needs a reader."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

#: Control characters but for tabs and ends of lines, marks that turn the direction of text, and halves of characters.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

#: What writing to a stream raises that is full, closed, or that nobody reads any more.
LOST = (OSError, ValueError)


def escaped(text: str) -> str:
    r"""Text in which control characters are shown, and do nothing.

    Example:
        >>> escaped("\x1b]0;title\x07")
        '\\x1b]0;title\\x07'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str) -> None:
    """One line on standard error, if that is read."""
    if sys.stderr is not None:
        with suppress(*LOST):
            print(escaped(text), file=sys.stderr, flush=True)


def answer(text: str) -> bool:
    """What a command was asked for, on standard output; whether it was written, or nobody wants to read it."""
    try:
        print(escaped(text), flush=True)
    except BrokenPipeError:
        _mute(sys.stdout)
        return True
    except LOST as error:
        _mute(sys.stdout)
        say(f"pisa-ray: standard output cannot be written ({error}): what was to stand there is lost.")
        return False
    return True


def is_watched() -> bool:
    """Whether standard error is a terminal."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except LOST:
        return False


@contextmanager
def streams() -> Iterator[None]:
    """Standard streams that can be written to, also where some are closed or know few characters.

    In the end nothing is left in them that Python would complain of when it exits.
    """
    for number in range(3):  # else the next file that is opened would be taken for standard error
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  (for the whole process)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        with suppress(*LOST):
            sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except LOST:
                _mute(stream)


def _mute(stream: TextIO) -> None:
    """Let a stream write to nowhere from now on."""
    with suppress(*LOST):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
