"""The files that a run writes line by line: metrics.jsonl, events.jsonl and arrivals.jsonl."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pisa_ray.engine.asynchrony import Step
from pisa_ray.engine.json_text import is_count, parse
from pisa_ray.engine.local_files import append, read_file, set_aside, write_file
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.changes import ADDED, REMOVED
from pisa_ray.trainer.manifest import is_change

METRICS, EVENTS, ARRIVALS = NAMES = "metrics.jsonl", "events.jsonl", "arrivals.jsonl"

Line = dict[str, Any]


class Records:
    """Appends to the files of one run, and reads them; others may have damaged them.

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
        """Append a round of an asynchronous run to arrivals.jsonl; a later line for the same round replaces it."""
        self._append(ARRIVALS, {"round": round_, "steps": steps})

    def end_arrivals(self, round_: int) -> None:
        """Note in arrivals.jsonl that shards joined, left or were away after a round, so the run cannot be repeated."""
        self._append(ARRIVALS, {"round": round_, "changed": True})

    def has_arrivals(self) -> bool:
        """Return whether there is an arrivals.jsonl."""
        return (self._folder / ARRIVALS).exists()

    def last_row(self) -> Line:
        """Return the last row of metrics.jsonl that can be read, or {}."""
        rows, _ = self._readable(METRICS)
        return rows[-1] if rows else {}

    def rows(self) -> list[Line]:
        """Return the rows of metrics.jsonl.

        Raises:
            ConfigError: If a line of it is damaged.
        """
        return self._read(METRICS, "remove that line, or go on with the run (resume=True), which leaves it out.")

    def changes(self) -> list[Line]:
        """Return the records in events.jsonl of shards that have joined and left so far.

        Raises:
            ConfigError: If a line of it is damaged.
        """
        found: dict[tuple[str, int], Line] = {}
        remedy = "remove that line, unless it told of a shard that joined or left, or go on with the run (resume=True)."
        for event in self._read(EVENTS, remedy):
            if event["kind"] in (REMOVED, ADDED):
                found[event["kind"], event["shard"]] = event
            elif event["kind"] == "resumed":  # changes after the checkpoint were undone
                found = {key: change for key, change in found.items() if change["round"] <= event["round"]}
        return list(found.values())

    def cut_back(self, round_: int, row: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> list[str]:
        """Drop lines that a resumed run will write again, and the extra row of an interrupted run; mend damaged files.

        Args:
            round_: The checkpoint's round.
            row: The last row in the checkpoint.
            changes: The records in the checkpoint of shards that have joined and left.

        Returns:
            A sentence for each file that was damaged, which is set aside after its readable lines are copied.

        Raises:
            OSError: If the files cannot be written.
        """
        rows, torn = self._readable(METRICS)
        kept = [line for line in rows if line["round"] <= round_ and line.get("consensus_move") is not None]
        if row.get("consensus_move") is not None and (not kept or kept[-1]["round"] < row["round"]):
            kept.append(dict(row))
        told = self._replace(METRICS, kept, torn)
        if os.path.lexists(self._folder / ARRIVALS):
            steps, torn = self._readable(ARRIVALS)
            told += self._replace(ARRIVALS, [line for line in steps if line["round"] <= round_], torn)
        events, torn = self._readable(EVENTS)
        if torn or (self._folder / EVENTS).is_symlink():  # a link is replaced by a file
            others = [event for event in events if event["kind"] not in (REMOVED, ADDED)]
            told += self._replace(EVENTS, [*others, *changes], torn)
        return told

    def drop_torn_lines(self) -> None:
        """Remove unfinished last lines, which a driver that died has left."""
        for path in (self._folder / name for name in NAMES):
            if path.is_file() and not path.is_symlink() and not (content := path.read_bytes()).endswith(b"\n"):
                os.truncate(path, content.rfind(b"\n") + 1)

    def _read(self, name: str, remedy: str) -> list[Line]:
        lines, damaged = self._readable(name)
        if damaged:
            raise ConfigError(f"{self._folder / name} is damaged{_where(damaged)}: {remedy}")
        return lines

    def _readable(self, name: str) -> tuple[list[Line], list[int]]:
        """Return the sound lines of a file, and the numbers of the others; [0] if it cannot be read.

        An unfinished last line is ignored, as a driver died while it wrote it, or is writing it.
        """
        path, sound, damaged = self._folder / name, list[Line](), list[int]()
        if not os.path.lexists(path):
            return sound, damaged
        try:
            content = read_file(path)
        except OSError:
            return sound, [0]
        for number, raw in enumerate(content.split(b"\n")[:-1], 1):
            try:
                if line := raw.strip():
                    sound.append(_checked(parse(line), _SHAPES[name]))
            except ValueError:
                damaged.append(number)
        return sound, damaged

    def _replace(self, name: str, lines: Sequence[Mapping[str, Any]], damaged: Sequence[int]) -> list[str]:
        path, told = self._folder / name, []
        if damaged:
            aside = set_aside(path)
            told.append(
                f"{name} was damaged{_where(damaged)}; it is kept as {aside.name}, and its readable lines are kept."
            )
        write_file(path, "".join(json.dumps(plain(line)) + "\n" for line in lines).encode())
        return told

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        append(self._folder / name, json.dumps(plain(row)) + "\n")


def plain(value: Any) -> Any:
    """Return a value for JSON, which has no NaN: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _where(damaged: Sequence[int]) -> str:
    if 0 in damaged:
        return " (something else is in its place)"
    shown = ", ".join(map(str, damaged[:5])) + (" and others" if len(damaged) > 5 else "")
    return f" in line{'s' if len(damaged) > 1 else ''} {shown}"


def _checked(line: Any, shape: Callable[[Line], bool]) -> Line:
    """Return a line if it has the fields that are read from it.

    Raises:
        ValueError: If it does not.
    """
    if not (isinstance(line, dict) and is_count(line.get("round")) and shape(line)):
        raise ValueError("it is not what a run writes")
    return line


def _is_row(line: Line) -> bool:
    return all(value is None or type(value) in (int, float) for value in line.values())


def _is_event(line: Line) -> bool:
    return isinstance(line.get("kind"), str) and (line["kind"] not in (REMOVED, ADDED) or is_change(line))


def _is_arrival(line: Line) -> bool:
    steps = [] if "changed" in line else line.get("steps")
    return isinstance(steps, list) and all(
        isinstance(step, list) and len(step) == 2 and all(map(is_count, step)) for step in steps
    )


_SHAPES = {METRICS: _is_row, EVENTS: _is_event, ARRIVALS: _is_arrival}
