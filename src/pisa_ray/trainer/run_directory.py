"""A run's folder: configuration, metrics, events, partition, result, checkpoints and the final model."""

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

#: What a storage elsewhere gets copies of, next to the checkpoints: with each of them, and at the end.
COPIED, RESULTS = (
    ("config.yaml", "partition.json", *NAMES),
    ("result.json", "model.safetensors"),
)


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the first is faster, and not everywhere


class RunDirectory:
    """Reads and writes the files of one run.

    Args:
        path: The folder itself.
        storage: Another folder, such as in an object store, that takes the checkpoints and copies of the other files.
        replacing: Whether a run that is here already is to be replaced by one that is taken: until then it is there,
            but is not this one's to go on with.

    Attributes:
        checkpoints: The folder of the checkpoints.
        model: The file of the final model.
        records: What is written down line by line.
        requests: What other processes ask of the run.
    """

    def __init__(self, path: Path, storage: Folder | None = None, *, replacing: bool = False) -> None:
        self.path = path.resolve()  # workers may have another working directory
        self.storage, self._replacing = storage, replacing
        self.checkpoints = (storage or Folder.of(self.path)) / "checkpoints"
        self.model = self.path / "model.safetensors"
        self.records, self.requests = Records(self.path), Requests(self.path)
        self._lock = RunLock(self.path)

    def take(self, config: Mapping[str, Any], partition: Mapping[str, Any]) -> None:
        """Begin a run here, as its first round is about to: what never finished a round, or is to be replaced, goes.

        Raises:
            ConfigError: The folder, or the storage, cannot be written; then nothing of the run is there.
        """
        with self._to_be_written(), unless_empty(self.checkpoints):  # there will be one when something is saved
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._clear()
                self._replacing = False
                self.checkpoints.create()
                self.write("partition.json", partition)
                self.record(config)  # last: with it there is a run here
            except (PisaError, *FAILURES):
                for name in ("partition.json", "config.yaml"):
                    (self.path / name).unlink(missing_ok=True)
                raise

    def go_on(self, config: Mapping[str, Any], partition: Mapping[str, Any]) -> None:
        """Go on with the run that is here or in the storage; clears away what half-written files left.

        Raises:
            ConfigError: The folder, or the storage, cannot be written.
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
        """Remove the files of a run that never finished a round, or is to be replaced; what says so last."""
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
        """Refuse a folder that holds a run which has begun, unless that is one to be replaced and nobody is at work.

        Raises:
            ConfigError: It does, or its storage does or cannot be read.
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
        """Whether the run here or in the storage has finished a round that tells of itself, or saved one.

        What never did leaves nothing to go on with, and may be replaced.

        Raises:
            ConfigError: The storage cannot be read.
        """
        return not self._replacing and any(map(self._began_in, self._folders()))

    def latest(self) -> Checkpoint | None:
        """The newest complete checkpoint of the run that is gone on with."""
        return None if self._replacing else checkpoint.latest(self.checkpoints)

    def planned_rounds(self) -> int | None:
        """The rounds that the recorded run's sigma schedule is planned over; None: there is none."""
        schedule = self.config().get("sigma_schedule") if self.has_begun() and self.holds_a_run() else None
        planned = schedule.get("rounds") if isinstance(schedule, dict) else None
        return planned if is_count(planned) and planned > 0 else None

    def holds_a_run(self) -> bool:
        """Whether there is a run in this folder, or in its storage; it need not have begun.

        Raises:
            ConfigError: The storage cannot be read.
        """
        return self._is_taken() or self._stored_run()

    def _is_taken(self) -> bool:
        return (self.path / "config.yaml").exists()

    def _folders(self) -> list[Folder]:
        return [self._folder, *([self.storage] if self.storage is not None else [])]

    def _began_in(self, folder: Folder) -> bool:
        try:
            return checkpoint.any_complete(folder / "checkpoints") or any(map(folder.size, (METRICS, ARRIVALS)))
        except PisaError as error:
            if folder.is_local:
                raise self._unwritable(error) from error
            raise self._unreadable(error) from error

    def config(self) -> dict[str, Any]:
        """The resolved configuration that the run was started with.

        Raises:
            ConfigError: There is no run here, or the file is damaged.
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
        """The same of a run that is going on.

        Raises:
            ConfigError: None is, or its first round has not begun.
        """
        if self.is_running() and not self._is_taken():
            raise ConfigError(f"the run in {self.path} is still starting: ask again when its first round has begun.")
        config = self.config()
        if not self.is_running():
            raise ConfigError(f"no run is going on in {self.path}: start or resume one.")
        return config

    def known_data(self) -> object:
        """What partition.json says of the data, if it can be read."""
        try:
            known = self.read("partition.json")
        except PisaError:
            return None
        return known.get("data") if isinstance(known, dict) else None

    def _recorded(self) -> bytes:
        """The text of config.yaml."""
        if self.storage is not None and not self._is_taken():
            return self.storage.read("config.yaml")
        return read_file(self.path / "config.yaml")

    def lock(self) -> AbstractContextManager[None]:
        """Keep other drivers out; see RunLock.hold."""
        return self._lock.hold()

    def is_running(self) -> bool:
        """Whether a driver is at work here."""
        return self._lock.is_held()

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        self._folder.write_json(name, plain(value))

    def read(self, name: str) -> dict[str, Any]:
        """Read a JSON file."""
        value: dict[str, Any] = self._folder.read_json(name)
        return value

    def cut_back(self, saved: Checkpoint | None) -> list[str]:
        """Drop what a run that is resumed from a checkpoint will write again, and what told how it ended.

        Returns:
            A sentence for each file that was damaged: it is set aside, and what can be read of it goes on.
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
            PisaError: It cannot be written.
        """
        if self.storage is None:
            return
        for name in (*COPIED, *(RESULTS if results else ())):
            if (self.path / name).exists():
                self.storage.copy_in(self.path / name)

    def _fetch(self) -> None:
        """Where this folder holds no run, but the storage does: copy its small files here."""
        if self.storage is None or self._is_taken():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        for name in (*COPIED[1:], COPIED[0]):  # config.yaml last: with it there is a run here
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

    @property
    def _folder(self) -> Folder:
        return Folder(str(self.path))
