"""What is said of an error that nobody has expected: one sentence, and where the rest is."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

from pisa_ray.trainer.terminal import say


def sentence(error: BaseException) -> str:
    """Say what failed, and write the traceback to a new file in the folder of temporary files.

    That is where it can be written whatever the run directory is; where it cannot, it goes to standard error.

    Args:
        error: What was caught.
    """
    text = "".join(traceback.format_exception(error))
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    try:
        handle, path = tempfile.mkstemp(prefix="pisa-ray-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{sys.argv}\n{text}")
    except OSError:
        say(text)
        return f"{what}; this was not expected, and its traceback could not be written to a file."
    return f"{what}; this was not expected: its traceback is in {path}."
