"""A run's folder: configuration, metrics, events, partition, result, checkpoints and the final model."""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from pisa_ray.engine.asynchrony import Step
from pisa_ray.engine.files import FAILURES, Folder
from pisa_ray.errors import ConfigError, PisaError
from pisa_ray.trainer.changes import ADDED, REMOVED, Asked
from pisa_ray.trainer.checkpoint import clear_unfinished

#: What a storage elsewhere gets copies of, next to the checkpoints: with each of them, and at the end.
COPIED, RESULTS = (
    ("config.yaml", "partition.json", "metrics.jsonl", "events.jsonl", "arrivals.jsonl"),
    ("result.json", "model.safetensors"),
)

#: Seconds for which a lock is tried: `is_running` holds it for a moment.
PATIENCE = 0.2


class RunDirectory:
    """Reads and writes the files of one run.

    Args:
        path: The folder itself.
        storage: Another folder, such as in an object store, that takes the checkpoints and copies of the other files.
    """

    def __init__(self, path: Path, storage: Folder | None = None) -> None:
        self.path = path.resolve()  # workers may have another working directory
        self.storage = storage
        self.checkpoints = (storage or Folder.of(self.path)) / "checkpoints"
        self.model = self.path / "model.safetensors"
        self.arrivals = self.path / "arrivals.jsonl"
        self._lock, self._held = self.path / ".lock", False

    def create(self, config: Mapping[str, Any]) -> None:
        """Start a run here, or go on with the one that is here; clears away what half-written files left.

        Raises:
            ConfigError: The folder, or the storage, cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.checkpoints.create()
            clear_unfinished(self.checkpoints)
            for name in ("metrics.jsonl", "events.jsonl", "arrivals.jsonl"):
                self._drop_torn_line(name)
            if not self.holds_a_run():
                self.record(config)
        except (PisaError, *FAILURES) as error:
            raise ConfigError(
                f"the run directory {self.path} cannot be written ({error.__cause__ or error}): use another --out."
            ) from error

    def record(self, config: Mapping[str, Any]) -> None:
        """Write config.yaml, whole or not at all."""
        self._folder.write("config.yaml", yaml.safe_dump(dict(config), sort_keys=False).encode())

    def check_free(self) -> None:
        """Refuse a folder that holds a run.

        Raises:
            ConfigError: It does, or its storage does or cannot be read.
        """
        if self.holds_a_run():
            if not self._held and self.is_running():
                raise self._taken()
            raise ConfigError(f"{self.path} holds a run already: use --resume to go on with it, or another --out.")
        if self._stored_run():
            raise ConfigError(f"{self.storage} holds a run already: use --resume to go on with it, or another name.")

    def check_storage(self) -> None:
        """Write something to the storage, if there is one, and remove it.

        Raises:
            ConfigError: That cannot be done.
        """
        if self.storage is None:
            return
        name = f"probe-{uuid.uuid4().hex[:8]}"
        try:
            self.storage.create()
            self.storage.write(name, b"to see whether it can be written")
            self.storage.remove(name)
        except (PisaError, *FAILURES) as error:
            raise ConfigError(
                f"the storage {self.storage} cannot be written ({error.__cause__ or error}): check its address, its "
                "permissions and the network, or use a local folder."
            ) from error

    def planned_rounds(self) -> int | None:
        """The rounds that the recorded run's sigma schedule is planned over; None: there is none."""
        self.fetch()
        schedule = self.config().get("sigma_schedule") if self.holds_a_run() else None
        return schedule.get("rounds") if isinstance(schedule, dict) else None

    def holds_a_run(self) -> bool:
        """Whether there is a run in this folder."""
        return (self.path / "config.yaml").exists()

    def config(self) -> dict[str, Any]:
        """The resolved configuration that the run was started with.

        Raises:
            ConfigError: There is no run here, or the file is damaged.
        """
        if not self.holds_a_run():
            raise ConfigError(f"{self.path} is not a run directory: it has no config.yaml.")
        try:
            loaded = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}/config.yaml is damaged: it is not YAML ({error}).") from error
        if not isinstance(loaded, dict):
            raise ConfigError(f"{self.path}/config.yaml is damaged: it holds no settings.")
        return loaded

    # One driver at a time

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other drivers out; the lock ends with the process, however that ends. Local disks, and most shared ones.

        Raises:
            ConfigError: Another driver is at work here; nothing has been touched.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = self._locked()
        except OSError as error:
            raise ConfigError(
                f"the run directory {self.path} cannot be written ({error}): use another --out."
            ) from error
        self._held = True
        try:
            yield
        finally:
            self._held = False
            with suppress(OSError):
                self._lock.unlink()
            os.close(handle)
            for folder in made:  # a run that was refused leaves nothing
                with suppress(OSError):
                    folder.rmdir()

    def is_running(self) -> bool:
        """Whether a driver is at work here."""
        try:
            handle = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _flock(handle, fcntl.LOCK_SH)
        finally:
            os.close(handle)

    def _locked(self) -> int:
        """A handle that holds the lock on the file that is there now, and is not handed on to other programs."""
        until = time.monotonic() + PATIENCE
        while True:
            handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if _flock(handle, fcntl.LOCK_EX) and self._is_current(handle):
                os.truncate(handle, 0)
                os.write(handle, f"{os.getpid()} {os.uname().nodename}".encode())
                return handle
            os.close(handle)
            if time.monotonic() > until:
                raise self._taken()
            time.sleep(0.01)

    def _is_current(self, handle: int) -> bool:
        """Whether an open file is the one that has the lock's name now; a driver that ends takes the name away."""
        try:
            return os.path.samestat(os.fstat(handle), self._lock.stat())
        except FileNotFoundError:
            return False

    def _taken(self) -> ConfigError:
        pid, _, node = self._lock.read_text().partition(" ") if self._lock.exists() else ("unknown", "", "")
        where = f" on {node}" if node and node != os.uname().nodename else ""
        return ConfigError(
            f"{self.path} is in use by the run of process {pid}{where}: wait until it ends, stop it, or use another "
            "--out."
        )

    # Files

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        self._folder.write_json(name, _plain(value))

    def read(self, name: str) -> dict[str, Any]:
        """Read a JSON file."""
        value: dict[str, Any] = self._folder.read_json(name)
        return value

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        self._append("metrics.jsonl", row)

    def add_event(self, kind: str, round_: int, **fields: Any) -> None:
        """Append an event to events.jsonl."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._append("events.jsonl", {"time": now, "round": round_, "kind": kind, **fields})

    def add_arrivals(self, round_: int, steps: Sequence[Step]) -> None:
        """Append a round of an asynchronous run to arrivals.jsonl; a later line for the same round counts instead."""
        self._append(self.arrivals.name, {"round": round_, "steps": steps})

    def end_arrivals(self, round_: int) -> None:
        """Note in arrivals.jsonl that shards joined, left or were away after a round: then it cannot be repeated."""
        self._append(self.arrivals.name, {"round": round_, "changed": True})

    def ask_resize(self, workers: int) -> None:
        """Leave word for the driver that runs here: it should have so many workers."""
        self.write("resize.json", {"workers": workers})

    def take_resize(self) -> int | None:
        """What was asked for since the last time, if anything."""
        taken = self.path / ".resize.json.taken"
        try:
            (self.path / "resize.json").rename(taken)  # so that one that is asked for meanwhile is not lost
            return int(json.loads(taken.read_text())["workers"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return None  # not from us

    def ask_shards(self, asked: Asked) -> None:
        """Leave word for the driver that runs here: a shard should join or leave. It stays until that is saved."""
        self.write(f"shards-{time.time_ns()}-{os.getpid()}.json", {"remove": asked.remove, "add": asked.add})

    def asked_shards(self) -> list[Asked]:
        """What has been asked for, the oldest first."""
        found = []
        for path in sorted(self.path.glob("shards-*.json")):
            try:
                word = json.loads(path.read_text(encoding="utf-8"))
                found.append(Asked(word["remove"], word["add"], path.name))
            except (ValueError, KeyError, TypeError, UnicodeDecodeError):
                path.unlink()  # not from us
        return found

    def forget_shards(self, asked: Asked) -> None:
        """It has been done, or refused."""
        if asked.name is not None:
            (self.path / asked.name).unlink(missing_ok=True)

    def changes(self) -> list[dict[str, Any]]:
        """The shards that have joined and left so far, as events.jsonl tells."""
        path = self.path / "events.jsonl"
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else ():
            event = json.loads(line)
            if event["kind"] in (REMOVED, ADDED):
                found[event["kind"], event["shard"]] = event
            elif event["kind"] == "resumed":  # what a run did after the checkpoint has not happened
                found = {key: change for key, change in found.items() if change["round"] <= event["round"]}
        return list(found.values())

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            with path.open() as lines:
                yield from (json.loads(line) for line in lines if line.endswith("\n"))

    def cut_back(self, round_: int) -> None:
        """Drop metrics that a resumed run will write again, the row of an interruption, and what told how it ended."""
        kept = [row for row in self.rows() if row["round"] <= round_ and row["consensus_move"] is not None]
        self._folder.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept).encode())
        if self.arrivals.exists():
            lines = self.arrivals.read_text().splitlines(keepends=True)
            kept_lines = [line for line in lines if json.loads(line)["round"] <= round_]
            self._folder.write(self.arrivals.name, "".join(kept_lines).encode())
        (self.path / "result.json").unlink(missing_ok=True)

    # The storage elsewhere

    def publish(self, *, results: bool = False) -> None:
        """Copy the small files, and at the end the results, to the storage, if there is one.

        Raises:
            PisaError: It cannot be written.
        """
        if self.storage is None:
            return
        for name in (*COPIED, *(RESULTS if results else ())):
            if (self.path / name).exists():
                self.storage.copy_in(self.path / name)

    def fetch(self) -> None:
        """Where this folder holds no run, but the storage does: copy its small files here.

        Raises:
            ConfigError: The storage cannot be read.
        """
        if self.holds_a_run() or not self._stored_run():
            return
        assert self.storage is not None  # noqa: S101  (for the type checker)
        self.path.mkdir(parents=True, exist_ok=True)
        for name in (*COPIED[1:], COPIED[0]):  # config.yaml last: with it there is a run here
            if self.storage.has(name):
                self._folder.write(name, self.storage.read(name))

    def _stored_run(self) -> bool:
        try:
            return self.storage is not None and self.storage.has("config.yaml")
        except PisaError as error:
            raise ConfigError(
                f"the storage {self.storage} cannot be read ({error.__cause__ or error}): check its address, its "
                "permissions and the network."
            ) from error

    @property
    def _folder(self) -> Folder:
        return Folder(str(self.path))

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with (self.path / name).open("a") as file:
            file.write(json.dumps(_plain(row)) + "\n")

    def _drop_torn_line(self, name: str) -> None:
        """Remove what a driver that died left of its last line, which would spoil the next one."""
        path = self.path / name
        if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)


def _flock(handle: int, how: int) -> bool:
    """Try to lock an open file; False if another has it. Where the file system has no locks nobody is kept out."""
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _plain(value: Any) -> Any:
    """JSON has no NaN: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
