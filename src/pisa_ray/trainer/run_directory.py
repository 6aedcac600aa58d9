"""The folder of a run: configuration, metrics, events, partition, result, checkpoints and the final model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import yaml

from pisa_ray.engine.files import FAILURES, Folder
from pisa_ray.engine.json_text import is_count
from pisa_ray.engine.local_files import clear_parts, read_file, set_aside
from pisa_ray.errors import ConfigError, PisaError
from pisa_ray.trainer import checkpoint
from pisa_ray.trainer.checkpoint import Checkpoint, clear_unfinished
from pisa_ray.trainer.manifest import Progress
from pisa_ray.trainer.records import ARRIVALS, METRICS, NAMES, Records, plain
from pisa_ray.trainer.requests import Requests
from pisa_ray.trainer.run_lock import RunLock
from pisa_ray.trainer.storage import unless_empty
from pisa_ray.trainer.yaml_text import parse

#: The files that are copied to a storage elsewhere: with each checkpoint, and at the end.
COPIED, RESULTS = (
    ("config.yaml", "partition.json", *NAMES),
    ("result.json", "model.safetensors"),
)


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the first is faster, but not everywhere available


class RunDirectory:
    """Reads and writes the files of one run.

    Args:
        path: The folder.
        storage: Another folder, such as in an object store, for the checkpoints and copies of the other files.
        replacing: Whether `take` replaces a run that is here already. Until then it stays, but cannot be resumed from
            here.

    Attributes:
        checkpoints: The folder of the checkpoints.
        model: The file of the final model.
        records: The files that are written line by line.
        requests: The requests of other processes.
    """

    def __init__(self, path: Path, storage: Folder | None = None, *, replacing: bool = False) -> None:
        self.path = path.resolve()  # workers may have another working directory
        self.storage, self._replacing, self._folder = storage, replacing, Folder(str(self.path))
        self.checkpoints = (storage or self._folder) / "checkpoints"
        self.model = self.path / "model.safetensors"
        self.records, self.requests = Records(self.path), Requests(self.path)
        self._lock = RunLock(self.path)

    def take(self, config: Mapping[str, Any], partition: Mapping[str, Any]) -> None:
        """Begin a run here before its first round; a run that never finished a round, or is to be replaced, is removed.

        Raises:
            ConfigError: If the folder, or the storage, cannot be written; then nothing of the run is left there.
        """
        with self._to_be_written(), unless_empty(self.checkpoints):  # the first checkpoint makes it again
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._clear()
                self._replacing = False
                self.checkpoints.create()
                self.write("partition.json", partition)
                self.record(config)  # last, as it marks a run
            except (PisaError, *FAILURES):
                for name in ("partition.json", "config.yaml"):
                    (self.path / name).unlink(missing_ok=True)
                raise

    def go_on(self, config: Mapping[str, Any], partition: Mapping[str, Any]) -> None:
        """Resume the run that is here or in the storage, and remove half-written files.

        Raises:
            ConfigError: If the folder, or the storage, cannot be written.
        """
        with self._to_be_written():
            self._fetch()
            self.checkpoints.create()
            clear_unfinished(self.checkpoints)
            clear_parts(self.path, (*COPIED, *RESULTS, "pretrained"))
            self.records.drop_torn_lines()
            self.write("partition.json", partition)
            self.record(config)

    def _clear(self) -> None:
        """Remove the files of a run that never finished a round, or is to be replaced; config.yaml goes last."""
        for folder in self._folders():
            clear_unfinished(folder / "checkpoints", and_complete=self._replacing)
        if self._replacing:
            (self._folder / "pretrained").delete()
        names = (*RESULTS, *reversed(COPIED))
        if self.storage is not None:
            for name in filter(self.storage.has, names):
                self.storage.remove(name)
        if self._is_taken():
            self.requests.forget()
            for name in names:
                (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def _to_be_written(self) -> Iterator[None]:
        try:
            yield
        except (PisaError, *FAILURES) as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"the run directory {self.path} cannot be written ({error.__cause__ or error}): use another run_config."
        )

    def record(self, config: Mapping[str, Any]) -> None:
        """Write config.yaml, whole or not at all."""
        text = yaml.dump(dict(config), Dumper=_DUMPER, sort_keys=False)
        self._folder.write("config.yaml", text.encode())

    def check_free(self) -> None:
        """Refuse a folder that holds a run which has begun, unless that is to be replaced and no driver is at work.

        Raises:
            ConfigError: If the folder or its storage holds such a run, or the storage cannot be read.
        """
        if self._is_taken() or self._began_in(self._folder):
            self._lock.check_free()
        if self._replacing and self.holds_a_run():
            return
        for folder in self._folders():
            if self._began_in(folder):
                other = "run_config" if folder.is_local else "name"
                raise ConfigError(
                    f"{folder} holds a run already: use resume=True to go on with it, overwrite=True to replace it, or "
                    f"another {other}."
                )

    def has_begun(self) -> bool:
        """Return whether the run here or in the storage has finished a round and recorded or saved it.

        A run that has not can neither be resumed nor lose anything if it is replaced.

        Raises:
            ConfigError: If the storage cannot be read.
        """
        return not self._replacing and any(map(self._began_in, self._folders()))

    def latest(self) -> Checkpoint | None:
        """Return the newest complete checkpoint of the run that is resumed, if there is one."""
        return None if self._replacing else checkpoint.latest(self.checkpoints)

    def planned_rounds(self) -> int | None:
        """Return the rounds that the recorded sigma schedule is planned over, or None if there is no such run."""
        schedule = self.config().get("sigma_schedule") if self.has_begun() and self.holds_a_run() else None
        planned = schedule.get("rounds") if isinstance(schedule, dict) else None
        return planned if is_count(planned) and planned > 0 else None

    def holds_a_run(self) -> bool:
        """Return whether there is a run in this folder, or in its storage; it need not have begun.

        Raises:
            ConfigError: If the storage cannot be read.
        """
        return self._is_taken() or self._stored_run()

    def _is_taken(self) -> bool:
        return (self.path / "config.yaml").exists()

    def _folders(self) -> list[Folder]:
        return [self._folder, *([self.storage] if self.storage is not None else [])]

    def _began_in(self, folder: Folder) -> bool:
        try:
            return bool(checkpoint.complete_in(folder / "checkpoints")) or any(map(folder.size, (METRICS, ARRIVALS)))
        except PisaError as error:
            if folder.is_local:
                raise self._unwritable(error) from error
            raise self._unreadable(error) from error

    def config(self) -> dict[str, Any]:
        """Return the resolved configuration that the run was started with.

        Raises:
            ConfigError: If there is no run here, or the file is damaged.
        """
        if not self.holds_a_run():
            raise ConfigError(f"{self.path} is not a run directory: it has no config.yaml.")
        file, remedy = self.path / "config.yaml", "put a copy of it back, or start a new run in another folder."
        try:
            loaded = parse(self._recorded().decode())
        except OSError as error:
            raise ConfigError(f"{file} cannot be read ({error.strerror}): {remedy}") from error
        except ValueError as error:
            raise ConfigError(f"{file} is damaged: it is not YAML ({error}): {remedy}") from error
        if not isinstance(loaded, dict):
            raise ConfigError(f"{file} is damaged: it holds no settings: {remedy}")
        return loaded

    def config_while_running(self) -> dict[str, Any]:
        """Return the same as `config`, for a run that is going on.

        Raises:
            ConfigError: If no run is going on, or its first round has not begun.
        """
        if self.is_running() and not self._is_taken():
            raise ConfigError(f"the run in {self.path} is still starting: ask again when its first round has begun.")
        config = self.config()
        if not self.is_running():
            raise ConfigError(f"no run is going on in {self.path}: start or resume one.")
        return config

    def known_data(self) -> object:
        """Return the fingerprints in partition.json, if it can be read."""
        try:
            known = self.read("partition.json")
        except PisaError:
            return None
        return known.get("data") if isinstance(known, dict) else None

    def _recorded(self) -> bytes:
        """Return the content of config.yaml."""
        if self.storage is not None and not self._is_taken():
            return self.storage.read("config.yaml")
        return read_file(self.path / "config.yaml")

    def lock(self) -> AbstractContextManager[None]:
        """Keep other drivers out; see RunLock.hold."""
        return self._lock.hold()

    def is_running(self) -> bool:
        """Return whether a driver is at work here."""
        return self._lock.is_held()

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        self._folder.write_json(name, plain(value))

    def read(self, name: str) -> dict[str, Any]:
        """Read a JSON file."""
        value: dict[str, Any] = self._folder.read_json(name)
        return value

    def cut_back(self, saved: Checkpoint | None) -> list[str]:
        """Drop lines that a run will write again when it is resumed from a checkpoint, and its last result.

        Returns:
            A sentence for each file that was damaged, which is set aside after its readable lines are copied.
        """
        progress = saved.progress if saved else Progress()
        told = self.records.cut_back(progress.round, saved.manifest["metrics"] if saved else {}, progress.changes)
        end = self.path / "result.json"
        if end.is_dir() and not end.is_symlink():
            told.append(f"{end.name} was a folder; it is kept as {set_aside(end).name}.")
        end.unlink(missing_ok=True)
        return told

    # The storage elsewhere

    def publish(self, *, results: bool = False) -> None:
        """Copy the small files, and at the end the results, to the storage, if there is one.

        Raises:
            PisaError: If it cannot be written.
        """
        if self.storage is None:
            return
        for name in (*COPIED, *(RESULTS if results else ())):
            if (self.path / name).exists():
                self.storage.copy_in(self.path / name)

    def _fetch(self) -> None:
        """Copy the small files from the storage, if that holds a run and this folder does not."""
        if self.storage is None or self._is_taken():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        for name in (*COPIED[1:], COPIED[0]):  # config.yaml last, as it marks a run
            if self.storage.has(name):
                self._folder.write(name, self.storage.read(name))

    def _stored_run(self) -> bool:
        try:
            return self.storage is not None and self.storage.has("config.yaml")
        except PisaError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: PisaError) -> ConfigError:
        return ConfigError(
            f"the storage {self.storage} cannot be read ({error.__cause__ or error}): check its address, its "
            "permissions and the network."
        )
