"""What a run writes down line by line: metrics.jsonl, events.jsonl and arrivals.jsonl."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pisa_ray.engine.asynchrony import Step
from pisa_ray.engine.files import Folder
from pisa_ray.trainer.changes import ADDED, REMOVED

METRICS, EVENTS, ARRIVALS = NAMES = "metrics.jsonl", "events.jsonl", "arrivals.jsonl"


class Records:
    """Appends to the files of one run, and reads them.

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        self._append(METRICS, row)

    def add_event(self, kind: str, round_: int, **fields: Any) -> None:
        """Append an event to events.jsonl."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._append(EVENTS, {"time": now, "round": round_, "kind": kind, **fields})

    def add_arrivals(self, round_: int, steps: Sequence[Step]) -> None:
        """Append a round of an asynchronous run to arrivals.jsonl; a later line for the same round counts instead."""
        self._append(ARRIVALS, {"round": round_, "steps": steps})

    def end_arrivals(self, round_: int) -> None:
        """Note in arrivals.jsonl that shards joined, left or were away after a round: then it cannot be repeated."""
        self._append(ARRIVALS, {"round": round_, "changed": True})

    def has_arrivals(self) -> bool:
        """Whether there is an arrivals.jsonl."""
        return (self._folder / ARRIVALS).exists()

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        path = self._folder / METRICS
        if path.exists():
            with path.open() as lines:
                yield from (json.loads(line) for line in lines if line.endswith("\n"))

    def changes(self) -> list[dict[str, Any]]:
        """The shards that have joined and left so far, as events.jsonl tells."""
        path = self._folder / EVENTS
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else ():
            event = json.loads(line)
            if event["kind"] in (REMOVED, ADDED):
                found[event["kind"], event["shard"]] = event
            elif event["kind"] == "resumed":  # what a run did after the checkpoint has not happened
                found = {key: change for key, change in found.items() if change["round"] <= event["round"]}
        return list(found.values())

    def cut_back(self, round_: int) -> None:
        """Drop what a resumed run will write again, and the row of an interruption."""
        folder = Folder(str(self._folder))
        kept = [row for row in self.rows() if row["round"] <= round_ and row["consensus_move"] is not None]
        folder.write(METRICS, "".join(json.dumps(row) + "\n" for row in kept).encode())
        arrivals = self._folder / ARRIVALS
        if arrivals.exists():
            lines = arrivals.read_text().splitlines(keepends=True)
            folder.write(ARRIVALS, "".join(line for line in lines if json.loads(line)["round"] <= round_).encode())

    def drop_torn_lines(self) -> None:
        """Remove what a driver that died left of its last lines, which would spoil the next ones."""
        for path in (self._folder / name for name in NAMES):
            if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
                os.truncate(path, content.rfind(b"\n") + 1)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with (self._folder / name).open("a") as file:
            file.write(json.dumps(plain(row)) + "\n")


def plain(value: Any) -> Any:
    """JSON has no NaN: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
