"""Drivers that die at every file operation of a resume and a save: test_checkpoint_files.py runs it as a process.

Usage: killed_saves.py FOLDER. Prints one JSON line per death, and one for the first driver that survives.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from runs import run

from pisa_ray.trainer import checkpoint
from pisa_ray.trainer.settings import Run

SETTINGS: dict[str, Any] = {"checkpoint_every": 1, "evaluate_every": 1}
WATCHED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}


def die_at(number: int, root: Path) -> None:
    """End this process at the n-th operation that changes files below a folder; at a flush, with half of the file."""
    count = 0

    def step(path: str) -> bool:
        nonlocal count
        count += path.startswith(str(root))
        return path.startswith(str(root)) and count == number

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event not in WATCHED or (event == "open" and not (args[1] and set(args[1]) & set("wa"))):
            return
        path, at = str(args[0]), args[-1]
        if event in ("os.remove", "os.rmdir") and at != -1:  # as shutil.rmtree does
            path = f"{os.readlink(f'/proc/self/fd/{at}')}/{path}"
        if step(path):
            os._exit(9)

    flush = os.fsync

    def half_flush(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if step(path):
            if Path(path).is_file():
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
            os._exit(9)
        flush(handle)

    sys.addaudithook(watch)
    os.fsync = half_flush


def main(folder: Path) -> None:
    straight = run(folder / "straight", rounds=3, **SETTINGS).weights_sha256
    base, number, status = folder / "base", 0, 9
    run(base, rounds=2, run_config=Run(base, keep=1), **SETTINGS)
    while status == 9:
        number += 1
        path = folder / f"killed-{number}"
        shutil.copytree(base, path)
        if (child := os.fork()) == 0:
            die_at(number, path)
            run(path, rounds=3, resume=True, run_config=Run(path, keep=1), **SETTINGS)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        last = checkpoint.latest(path / "checkpoints")
        resumed = run(path, rounds=3, resume=True, run_config=Run(path, keep=1), **SETTINGS)
        found = {
            "number": number,
            "status": status,
            "round": last.progress.round if last else None,
            "same": resumed.weights_sha256 == straight,
            "rows": [row["round"] for row in resumed.history],
            "left": len(list((path / "checkpoints").iterdir())),
        }
        print(json.dumps(found), flush=True)
        shutil.rmtree(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
