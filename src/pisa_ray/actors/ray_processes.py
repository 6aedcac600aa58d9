"""Ray's own processes on this machine, found by what Linux knows of them."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray

#: Parts of the names of the processes that Ray needs: a raylet ends when one of its agents does.
_VITAL = ("gcs_server", "raylet", "agent")


def raylet_of_this_machine() -> socket.socket | None:
    """Connect to the raylet that this process uses; the connection ends when it does. None: it cannot be reached."""
    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for node in nodes:
        if node["NodeID"] == here:
            found = socket.socket(socket.AF_UNIX)
            try:
                found.connect(node["RayletSocketName"])
            except OSError:
                found.close()
                return None
            return found
    return None


def vital_processes(started: Sequence[int], raylet: socket.socket | None) -> list[int]:
    """Return file descriptors, one for each process that Ray needs, which can be read once it has ended.

    Args:
        started: Ids of processes of Ray, vital or not.
        raylet: A connection to the raylet.
    """
    parents = set(started)
    with suppress(OSError, AttributeError, struct.error):  # Linux only
        if raylet is not None:
            peer = raylet.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            parents.add(struct.unpack("3i", peer)[0])
    found = []
    for pid in sorted(parents | children(parents)):
        with suppress(OSError, AttributeError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(name in os.path.basename(part).lower() for part in _told(command) for name in _VITAL):
                found.append(os.pidfd_open(pid))
    return found


def _told(command: Sequence[bytes]) -> list[str]:
    """Return the parts of a command that show the kind of a process: its program, or the script of a Python."""
    words = [os.fsdecode(part) for part in command]
    scripts = [os.path.dirname(word) for word in words if word.endswith(("agent/main.py",))]
    return [*words[:1], *(word for word in words[1:4] if word.endswith("agent.py")), *scripts]


def children(parents: set[int]) -> set[int]:
    """Return the ids of the processes that some processes have started."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            after = (folder / "stat").read_text().rpartition(")")[2]
            if int(after.split()[1]) in parents:
                found.add(int(folder.name))
    return found
