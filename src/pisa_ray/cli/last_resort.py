"""Describes an unexpected error in one sentence that names the file with its traceback."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

from pisa_ray.trainer.terminal import say


def sentence(error: BaseException) -> str:
    """Return a sentence on an error, and write its traceback to a new temporary file.

    If the file cannot be written, the traceback goes to standard error.

    Args:
        error: The error.
    """
    text = "".join(traceback.format_exception(error))
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    try:
        handle, path = tempfile.mkstemp(prefix="pisa-ray-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{sys.argv}\n{text}")
    except OSError:
        say(text)
        return f"{what}; this error was not expected, and its traceback could not be written to a file."
    return f"{what}; this error was not expected: its traceback is in {path}."
