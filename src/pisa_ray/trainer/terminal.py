"""Writes to standard output and standard error, without control characters, and even if nobody reads them."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

#: Control characters except tabs and line ends, marks that turn the direction of text, and lone surrogates.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

#: The errors of writing to a stream that is full or closed, or whose reader has gone.
LOST = (OSError, ValueError)


def escaped(text: str) -> str:
    r"""Return a text in which control characters are shown instead of taking effect.

    Example:
        >>> escaped("\x1b]0;title\x07")
        '\\x1b]0;title\\x07'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str) -> None:
    """Write a line to standard error, if that is possible."""
    if sys.stderr is not None:
        with suppress(*LOST):
            print(escaped(text), file=sys.stderr, flush=True)


def answer(text: str) -> bool:
    """Write the answer of a command to standard output; return False if it was lost, unless its reader has gone."""
    try:
        print(escaped(text), flush=True)
    except BrokenPipeError:
        _mute(sys.stdout)
        return True
    except LOST as error:
        _mute(sys.stdout)
        say(f"pisa-ray: standard output cannot be written ({error}): the output is lost.")
        return False
    return True


def is_watched() -> bool:
    """Return whether standard error is a terminal."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except LOST:
        return False


@contextmanager
def streams() -> Iterator[None]:
    """Make the standard streams writable, even if some are closed or encode few characters.

    At the end they are flushed, so that Python has nothing to complain of when it exits.
    """
    for number in range(3):  # else the next file that is opened would become standard error
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
    """Discard whatever is written to a stream from now on."""
    with suppress(*LOST):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
