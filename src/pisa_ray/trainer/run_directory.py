"""A run's folder: configuration, metrics, events, partition, result, checkpoints and the final model."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from pisa_ray.errors import ConfigError


class RunDirectory:
    """Reads and writes the files of one run.

    Args:
        path: The folder itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()  # workers may have another working directory
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model.safetensors"

    def create(self, config: Mapping[str, Any]) -> None:
        """Start a run here, or go on with the one that is here; clears away what half-written checkpoints left.

        Raises:
            ConfigError: The folder cannot be written.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            for part in self.checkpoints.glob(".round-*"):
                shutil.rmtree(part)
            (self.path / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False))
        except OSError as error:
            raise ConfigError(
                f"the run directory {self.path} cannot be written ({error}): use another --out."
            ) from error

    def check_free(self) -> None:
        """Refuse a folder that holds a run.

        Raises:
            ConfigError: It does.
        """
        if self.holds_a_run():
            raise ConfigError(f"{self.path} holds a run already: use --resume to go on with it, or another --out.")

    def holds_a_run(self) -> bool:
        """Whether there is a run in this folder."""
        return (self.path / "config.yaml").exists()

    def config(self) -> dict[str, Any]:
        """The resolved configuration that the run was started with.

        Raises:
            ConfigError: There is no run here.
        """
        if not self.holds_a_run():
            raise ConfigError(f"{self.path} is not a run directory: it has no config.yaml.")
        loaded: dict[str, Any] = yaml.safe_load((self.path / "config.yaml").read_text())
        return loaded

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        part = self.path / f".{name}.part"
        part.write_text(json.dumps(_plain(value), indent=1) + "\n")
        part.replace(self.path / name)

    def read(self, name: str) -> dict[str, Any]:
        """Read a JSON file."""
        value: dict[str, Any] = json.loads((self.path / name).read_text())
        return value

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        self._append("metrics.jsonl", row)

    def add_event(self, kind: str, round_: int, **fields: Any) -> None:
        """Append an event to events.jsonl."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._append("events.jsonl", {"time": now, "round": round_, "kind": kind, **fields})

    def ask_resize(self, workers: int) -> None:
        """Leave word for the driver that runs here: it should have so many workers."""
        self.write("resize.json", {"workers": workers})

    def take_resize(self) -> int | None:
        """What was asked for since the last time, if anything."""
        if not (self.path / "resize.json").exists():
            return None
        asked = self.read("resize.json")
        (self.path / "resize.json").unlink(missing_ok=True)
        return int(asked["workers"])

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            with path.open() as lines:
                yield from (json.loads(line) for line in lines if line.endswith("\n"))

    def cut_back(self, round_: int) -> None:
        """Drop metrics that a resumed run will write again, the row of an interruption, and what told how it ended."""
        kept = [row for row in self.rows() if row["round"] <= round_ and row["primal_residual"] is not None]
        part = self.path / ".metrics.jsonl.part"
        part.write_text("".join(json.dumps(row) + "\n" for row in kept))
        part.replace(self.path / "metrics.jsonl")
        (self.path / "result.json").unlink(missing_ok=True)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with (self.path / name).open("a") as file:
            file.write(json.dumps(_plain(row)) + "\n")


def _plain(value: Any) -> Any:
    """JSON has no NaN: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
