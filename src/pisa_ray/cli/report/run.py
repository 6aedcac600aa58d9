"""Reads the files of a run directory, as far as they can be read."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pisa_ray.cli.report.text import count, number
from pisa_ray.engine.local_files import read_file
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.yaml_text import parse

Row = Mapping[str, object]

_LARGEST = 1e100  # values from here on cannot be drawn


@dataclass(frozen=True)
class RecordedRun:
    """A run directory as far as it could be read; `notes` say what is missing."""

    path: Path
    name: str
    config_text: str
    config: Row
    rows: Sequence[Row]
    result: Row
    events: Sequence[Row]
    shards: Sequence[Row]
    notes: Sequence[str]

    @property
    def status(self) -> str:
        """The status with which it ended, if it did."""
        return str(self.result.get("status") or ("unfinished" if not self.result else "unknown"))

    @property
    def rounds(self) -> object:
        """The last round that was recorded."""
        return self.last("rounds" if self.result else "round")

    @property
    def gradient_share(self) -> float | None:
        """The share of the workers' time that was spent on gradients."""
        gradient, seconds = number(self.result.get("gradient_seconds")), number(self.result.get("seconds"))
        workers = number(self.last("workers")) or 1
        return gradient / (seconds * workers) if gradient is not None and seconds else None

    def last(self, key: str) -> object:
        """Return a final value, of the result or else of the last evaluated round."""
        value = self.result.get(key)
        return value if value is not None else self.rows[-1].get(key) if self.rows else None

    def best(self, key: str, choose: Callable[[Iterable[float]], float]) -> float | None:
        """Return a best value, of the result or else of all evaluated rounds."""
        value = number(self.result.get(f"best_{key}"))
        values = [y for _, y in self.points(key)]
        return value if value is not None else choose(values) if values else None

    def points(self, key: str) -> list[tuple[float, float]]:
        """Return the finite values of a metric, each with its round."""
        found = ((number(row["round"]), number(row.get(key))) for row in self.rows)
        return [(x, y) for x, y in found if x is not None and y is not None and max(abs(x), abs(y)) < _LARGEST]


def read_runs(paths: Sequence[Path]) -> list[RecordedRun]:
    """Read run directories; runs of the same name get their directories added to it.

    Raises:
        ConfigError: If one is not a run directory.
    """
    runs = [_read_run(path) for path in paths]
    names = Counter(run.name for run in runs)
    return [replace(run, name=f"{run.name} ({run.path})") if names[run.name] > 1 else run for run in runs]


def _read_run(path: Path) -> RecordedRun:
    if _text(path / "config.yaml") is None:
        raise ConfigError(
            f"{path} is not a run directory (it has no config.yaml): name one that 'pisa-ray train' has written."
        )
    notes: list[str] = []
    config_text = _text(path / "config.yaml") or ""
    try:
        config = parse(config_text)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        notes.append("config.yaml cannot be read as settings; its text is shown as it is.")
        config = {}
    result = _read_json(path / "result.json", notes, "the run is still going, or was ended before it could write one")
    partition = _read_json(path / "partition.json", notes, "how the rows lie on the shards is not known")
    shards = partition.get("shards")
    shards = [shard for shard in shards if isinstance(shard, dict)] if isinstance(shards, list) else []
    if partition and not shards:
        notes.append("partition.json names no shards.")
    lines = _read_lines(path / "metrics.jsonl", notes)
    found = {at: row for row in lines if (at := number(row.get("round"))) is not None}
    rows = [found[at] for at in sorted(found)]
    for row in rows:
        sigma, residual = number(row.get("sigma")), number(row.get("primal_residual"))
        row["sigma_primal"] = None if sigma is None or residual is None else sigma * residual
    if not rows and (path / "metrics.jsonl").is_file():
        notes.append("metrics.jsonl holds no evaluated round yet.")
    events = _read_lines(path / "events.jsonl", notes)
    name = str(result.get("name") or config.get("name") or path.resolve().name)
    run = RecordedRun(path, name, config_text, config, rows, result, events, shards, notes)
    if rows and not run.points("test_accuracy"):
        notes.append("No test accuracy: the run has no test data, or its evaluation gives no accuracy.")
    return run


def _read_json(path: Path, notes: list[str], meaning: str) -> dict[str, Any]:
    if not path.exists():
        notes.append(f"No {path.name}: {meaning}.")
        return {}
    value = _parsed(_text(path) or "")
    if not isinstance(value, dict):
        notes.append(f"{path.name} cannot be read: it is not one JSON object.")
        return {}
    return value


def _read_lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    text = _text(path)
    if text is None:
        notes.append(f"No {path.name}.")
        return []
    found, broken = [], 0
    for line in filter(str.strip, text.split("\n")):
        value = _parsed(line)
        if isinstance(value, dict):
            found.append(value)
        else:
            broken += 1
    if broken:
        are = "is" if broken == 1 else "are"
        notes.append(f"{path.name}: {count(broken, 'line')} cannot be read and {are} left out.")
    return found


def _text(path: Path) -> str | None:
    """Return the text of a file, or None if it cannot be read."""
    try:
        return read_file(path).decode(errors="replace")
    except (OSError, ValueError):
        return None


def _parsed(text: str) -> Any:
    """Return the value of a JSON text, or None if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
