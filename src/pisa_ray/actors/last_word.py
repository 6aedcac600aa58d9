"""A small process that outlives this one: it says why this one ended, and ends the processes of its Ray."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress

#: Ray's core ends a process without a word when the processes that it talks to are gone, as SIGKILL does.
SUDDEN = (
    "pisa-ray: the run's process was ended at once, by SIGKILL (too little memory?) or because Ray's own processes are "
    "gone; a resume goes on from the last checkpoint."
)

#: The shell's input ends with the process that it belongs to. An empty line takes the sentence back.
_SCRIPT = """
said=$1; shift
while IFS= read -r line; do said=$line; done
[ -z "$said" ] || printf '%s\\n' "$said" >&2
for group do kill -s KILL -- "-$group" 2>/dev/null; done
"""


class LastWord:
    """Says a sentence, and ends groups of processes, if this process ends before `close`.

    Args:
        groups: Ids of the groups.
    """

    def __init__(self, groups: Sequence[int] = ()) -> None:
        self._shell: subprocess.Popen[bytes] | None = None
        with suppress(OSError):  # without a shell there is no last word
            self._shell = subprocess.Popen(  # noqa: S603
                ["/bin/sh", "-c", _SCRIPT, "sh", SUDDEN, *map(str, groups)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def say(self, sentence: str) -> None:
        """Have another sentence said, if it comes to that."""
        if self._shell is not None and self._shell.stdin is not None:
            with suppress(OSError, ValueError):
                os.write(self._shell.stdin.fileno(), f"{sentence}\n".encode())

    def close(self) -> None:
        """Let nothing be said; what is left of the groups is ended all the same."""
        self.say("")
        if self._shell is None or self._shell.stdin is None:
            return
        with suppress(OSError):
            self._shell.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._shell.wait(5)
