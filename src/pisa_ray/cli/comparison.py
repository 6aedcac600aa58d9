"""Reads the comparison file, and makes the training configuration of each cell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from pisa_ray.checks import shown
from pisa_ray.cli.config import IN_BASE, check_places, checked, read
from pisa_ray.errors import ConfigError
from pisa_ray.fields import Count, Key, every_key
from pisa_ray.options import Options
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.data import SPLITS, absolute

#: Keys of a train file that are in another place in a comparison.
_ELSEWHERE = {"algorithm": "algorithms", "partition": "partitions", "seed": "seeds", "name": "name", "ray": "ray"}


@dataclass(frozen=True, kw_only=True)
class Comparison(Options):
    """The whole file.

    Attributes:
        name: The title of the page, and the name of its folder in runs/; None: that of the file.
        base: A configuration file without algorithm, partition, seed, name and ray; workers is 0 by default here.
        algorithms: For each row its name and the keys of a configuration file that it changes, each as a whole:
            algorithm, sigma_schedule, batch_size, participation and so on.
        partitions: For each partition its name and a section as partition has it, or a section with keys of a
            configuration file, one of which is partition.
        seeds: The seeds with which every algorithm runs on every partition.
        equal: The work that is the same for all rows: that of `base.rounds` rounds with one mini-batch of
            `base.batch_size` rows (one vector) per shard. A row gets the nearest number of rounds, at least 1.
        score: The metric of the tables and curves, a field of metrics.jsonl.
        concurrent: The number of runs at a time, while runs with their own workers come one after the other; None: as
            many as there is room for.
        ray_address: The cluster, as in a configuration file.
    """

    elsewhere: ClassVar[Mapping[str, str]] = IN_BASE | {"algorithm": "algorithms", "partition": "partitions"}

    name: str | None = None
    base: dict[str, Any]
    algorithms: dict[str, dict[str, Any]]
    partitions: dict[str, dict[str, Any]]
    seeds: tuple[Annotated[int, Ge(0)], ...] = (0,)
    equal: Literal["gradients", "bytes", "rounds"] = "gradients"
    score: str = "test_accuracy"
    concurrent: Count | None = None
    ray_address: Annotated[str | None, Key("ray.address")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.seeds:
            raise ConfigError("seeds is [], but it must be a list of at least one number.")
        if len({*self.seeds}) < len(self.seeds):
            raise ConfigError(f"seeds is {list(self.seeds)}, but each must be there once.")


@dataclass(frozen=True)
class Spec:
    """A comparison file and the folder of its paths.

    Attributes:
        file: The content of the file.
        folder: The folder that data paths are relative to.
    """

    file: Comparison
    folder: Path

    @classmethod
    def load(cls, path: Path, settings: list[str] | None = None) -> Spec:
        """Read a comparison file, whose name is the default of `name`; see `pisa_ray.cli.config.load`."""
        return cls.of({"name": path.stem} | read(path, settings), path.resolve().parent)

    @classmethod
    def of(cls, values: Mapping[str, Any], folder: Path | None = None) -> Spec:
        """Make a comparison of a file's values.

        Raises:
            ConfigError: If something is wrong; it names the first, in one sentence.
        """
        given = deepcopy(dict(values))
        for key in ("algorithms", "partitions"):
            if isinstance(given.get(key), Mapping):  # an empty row changes nothing; a name such as 10 becomes text
                given[key] = {str(name): {} if row is None else row for name, row in given[key].items()}
        file = Comparison.read(given, "")
        spec = cls(file, folder or Path.cwd())
        for row in (file.base, *file.algorithms.values(), *file.partitions.values()):
            _make_absolute(row, spec.folder)  # so that the recorded file can be run from anywhere
        spec._check_places()
        spec._check_names()
        return spec

    def overrides(self, partition: str) -> dict[str, Any]:
        """Return the keys of a train file that a partition changes, one of which is partition."""
        row = self.file.partitions[partition]
        return row if "partition" in row else {"partition": row}

    def config(self, algorithm: str | None, partition: str, seed: int) -> Config:
        """Return the training configuration of a cell, at the base's rounds; without an algorithm, that of the base.

        Raises:
            ConfigError: If something in it is wrong, named as in the comparison file.
        """
        from pisa_ray.trainer.start import method_of

        with self.naming(algorithm, partition):
            config = checked(self._values(algorithm, partition, seed), self.folder)
            config = config.changed(algorithm=method_of(config))
            if config.stop_seconds is not None:
                raise ConfigError("stop.seconds would end cells by the clock, not by their work: leave it out.")
            if config.run.storage_path is not None:
                raise ConfigError("checkpoint.storage is not for comparisons: cells keep their checkpoints with --out.")
        return config

    def look(self) -> None:
        """Check the keys and values of all rows, and the files that they name, before anything is imported.

        Raises:
            ConfigError: If something is wrong, named as in the comparison file.
        """
        for partition in self.file.partitions:
            for algorithm in (None, *self.file.algorithms):
                with self.naming(algorithm, partition):
                    check_places(checked(self._values(algorithm, partition, self.file.seeds[0]), self.folder))

    def _values(self, algorithm: str | None, partition: str, seed: int) -> dict[str, Any]:
        row = self.file.algorithms[algorithm] if algorithm is not None else {}
        values = {"workers": 0} | self.file.base | self.overrides(partition) | row
        return deepcopy(values | {"seed": seed, "name": f"{algorithm}, {partition}, seed {seed}"})

    @contextmanager
    def naming(self, algorithm: str | None, partition: str) -> Iterator[None]:
        """Name keys in errors on a cell as in the comparison file."""
        try:
            yield
        except ConfigError as error:
            raise self._named(error, algorithm, partition) from error

    def _named(self, error: ConfigError, algorithm: str | None, partition: str) -> ConfigError:
        """Return an error on a key of a train file with the key's place in the comparison file."""
        text = str(error)
        key = text.split(maxsplit=1)[0].split(".", maxsplit=1)[0]
        if key == "score":  # it is a key of the comparison file
            return error
        if key == "partition" and "partition" not in self.file.partitions[partition]:
            return ConfigError(f"partitions.{partition}{text.removeprefix('partition')}")
        if algorithm is not None and key in self.file.algorithms[algorithm]:
            return ConfigError(f"algorithms.{algorithm}.{text}")
        if key in self.overrides(partition):
            return ConfigError(f"partitions.{partition}.{text}")
        if key in self.file.base or any(key == known.partition(".")[0] for known in every_key(Config)):
            return ConfigError(f"base.{text}")
        return ConfigError(f"algorithms.{algorithm} on partitions.{partition}: {text}")

    def explicit(self, key: str, algorithm: str) -> bool:
        """Return whether a row has a key itself, so that it is not fitted to the row's rounds."""
        return key in self.file.algorithms[algorithm]

    def _check_places(self) -> None:
        rows = [("base", self.file.base, _ELSEWHERE)]
        rounds = {"rounds": "base.rounds"}  # the rounds of all rows follow from it, at equal work
        for name, row in self.file.algorithms.items():
            if "kind" in row:
                raise ConfigError(f"algorithms.{name}.kind is not for here: write algorithm: {{kind: ...}}.")
            rest = {key: place for key, place in _ELSEWHERE.items() if key != "algorithm"}
            rows.append((f"algorithms.{name}", row, rest | rounds))
        for name in self.file.partitions:
            rest = {key: place for key, place in _ELSEWHERE.items() if key != "partition"}
            rows.append((f"partitions.{name}", self.overrides(name), rest | rounds))
        for where, row, places in rows:
            for key in row:
                if key in places:
                    raise ConfigError(f"{where}.{key} is not for here: leave it out and set {places[key]}.")

    def _check_names(self) -> None:
        for key, names in (("algorithms", self.file.algorithms), ("partitions", self.file.partitions)):
            if not names:
                raise ConfigError(f"{key} is empty, but there is nothing to compare then: add at least one.")
            folders: dict[str, str] = {}
            for name in names:
                folder = slug(name)
                if not folder:
                    raise ConfigError(f"{key} has the name {shown(name)}, but a name needs a letter or a digit.")
                if folder in folders:
                    raise ConfigError(
                        f"{key}.{name} and {key}.{folders[folder]} would share the folder {folder}: rename one of them."
                    )
                folders[folder] = name
        for name, row in self.file.algorithms.items():
            if row.get("algorithm") is None:
                raise ConfigError(
                    f"algorithms.{name}.algorithm is missing: add it, such as algorithm: {{kind: sisa_d}}."
                )


def _make_absolute(row: dict[str, Any], folder: Path) -> None:
    for section, places in (("data", SPLITS), ("model", ("weights",))):
        values = row.get(section)
        if isinstance(values, dict):
            values |= {key: absolute(values[key], folder) for key in places if key in values}


def slug(name: str) -> str:
    """Return a name as part of a path.

    Example:
        >>> slug("FedAvg, 10 steps")
        'fedavg-10-steps'
    """
    return re.sub(r"[^\w.+]+", "-", name.lower()).strip("-._")
