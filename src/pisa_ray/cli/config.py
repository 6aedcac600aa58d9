"""The configuration file: its keys are the contract, checked here before anything starts."""

from __future__ import annotations

import glob
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from pisa_ray import checks
from pisa_ray.algorithm.method import Method
from pisa_ray.algorithm.robust import Robust
from pisa_ray.cli.data import making
from pisa_ray.cli.model import ModelSection
from pisa_ray.data.partitions.partition import Partition
from pisa_ray.engine.asynchrony import Asynchronous
from pisa_ray.errors import ConfigError
from pisa_ray.options import Count, NotNegative, Options, Positive
from pisa_ray.schedulers.schedule import SigmaSchedule
from pisa_ray.trainer.data import Data
from pisa_ray.trainer.yaml_text import parse

if TYPE_CHECKING:
    from pisa_ray.trainer.settings import Run

#: What of `data` names files.
SPLITS = ("train", "test", "validation")

_NAMES = checks.sequence(checks.text, "a list of names", least=1)

Seed = Annotated[int, Ge(0), Le(2**63 - 1)]


@dataclass(frozen=True, kw_only=True)
class Workers(Options):
    """`workers: {min, max}`.

    Attributes:
        min: Fewest workers to start with.
        max: Most workers; as many of them as there is room for are started.
    """

    min: Count = 1
    max: Count

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max < self.min:
            raise ConfigError(
                f"Workers.min is {self.min} and Workers.max {self.max}, but it must be a range whose max is at least "
                "its min."
            )


@dataclass(frozen=True, kw_only=True)
class Stop(Options):
    """`stop`: reasons to end early.

    Attributes:
        seconds: Seconds of training after which the run stops.
        test_accuracy: Test accuracy at which it stops.
    """

    seconds: Positive | None = None
    test_accuracy: Annotated[float, Gt(0), Le(1)] | None = None


@dataclass(kw_only=True)
class Checkpoints(Options):
    """`checkpoint`: how often, how many and which stay, and where.

    Attributes:
        every: Rounds between two; null: only at the end.
        keep: How many of the latest stay; null: all.
        best_by: A metric by which one more stays, the best.
        order: Whether more of it is better.
        storage: A URI that takes the checkpoints, in a folder with the run's name.
    """

    every: Count | None = 50
    keep: Count | None = 2
    best_by: str | None = None
    order: Literal["max", "min"] = "max"
    storage: str | None = None

    def build(self, out: Path, max_failures: int) -> Run:
        """The run directory and what is kept there, as the trainer takes it."""
        from pisa_ray.engine.files import Folder
        from pisa_ray.trainer.settings import Run

        storage = None
        if self.storage is not None:
            above = Folder.of(self.storage)
            if above.is_local:
                raise ConfigError(
                    f"checkpoint.storage is {self.storage!r}, but it must be a URI such as s3://bucket/prefix; for a "
                    "local or shared folder use --out."
                )
            storage = above / out.resolve().name
        return Run(out, self.keep, max_failures, self.best_by, self.order, storage)


@dataclass(frozen=True, kw_only=True)
class AsynchronousRounds(Asynchronous):
    """`asynchronous`: rounds that do not wait for all shards.

    Attributes:
        replay: The arrivals.jsonl of an asynchronous run that is to be repeated.
    """

    replay: str | None = None

    def build(self) -> Asynchronous:
        """The rule alone."""
        return Asynchronous(quorum=self.quorum, staleness=self.staleness, deadline=self.deadline)


@dataclass(frozen=True, kw_only=True)
class Cluster(Options):
    """`ray`: where the cluster is.

    Attributes:
        address: As in ray.init; null: a cluster on this machine.
    """

    address: str | None = None


@dataclass(kw_only=True)
class Config(Options):
    """The whole file; docs/configuration.md has its keys."""

    name: str | None = None
    seed: Seed = 0
    data: Data
    partition: Partition
    model: ModelSection
    algorithm: Method | None = None
    sigma_schedule: SigmaSchedule | None = None
    loss: str | None = None
    metrics: Annotated[str | tuple[str, ...], checks.text | _NAMES] | None = None
    rounds: Count = 200
    batch_size: Count | Literal["full"] = 64
    micro_batch_size: Count | None = None
    clip_norm: Positive | None = None
    autocast: Annotated[bool | str, checks.no | checks.choice("bfloat16")] = False
    shard_weights: Literal["size", "uniform"] = "size"
    participation: Annotated[float, Gt(0), Le(1)] | tuple[tuple[int, ...], ...] = 1.0
    asynchronous: AsynchronousRounds | None = None
    pin_to: dict[str, tuple[str | None, ...]] | None = None
    robust: Robust | None = None
    evaluate_every: Count = 20
    workers: Annotated[int, Ge(0)] | Workers = 1
    threads_per_worker: Count = 1
    compiled: bool | None = None
    cpus_per_worker: NotNegative = 1.0
    gpus_per_worker: NotNegative = 0.0
    worker_labels: dict[str, str] = field(default_factory=dict)
    patience: NotNegative = 300.0
    frozen_after: Positive = 30.0
    max_failures: Annotated[int, Ge(-1)] = -1
    exact: bool = True
    stop: Stop = field(default_factory=Stop)
    checkpoint: Checkpoints = field(default_factory=Checkpoints)
    ray: Cluster = field(default_factory=Cluster)

    @classmethod
    def spelled(cls, values: dict[str, Any], path: str) -> dict[str, Any]:
        """See Options: sections may be left empty, `algorithm` may be auto, or groups without a kind."""
        values = {key: value for key, value in values.items() if value is not None or key not in _OPTIONAL}
        algorithm = values.get("algorithm")
        if isinstance(algorithm, dict) and "groups" in algorithm:
            if (kind := algorithm.get("kind", "grouped")) != "grouped":
                raise ConfigError(
                    f"algorithm.kind is {kind!r}, but algorithm has groups, each with a kind: leave it out."
                )
            values["algorithm"] = {"kind": "grouped"} | algorithm
        if algorithm in ("auto", {"kind": "auto"}):
            values["algorithm"] = None
        return values

    def written(self) -> dict[str, Any]:
        """See Options."""
        section: dict[str, Any] = super().written()
        return section if self.algorithm is not None else section | {"algorithm": {"kind": "auto"}}


#: Sections that may be left empty: their defaults apply.
_OPTIONAL = ("algorithm", "sigma_schedule", "stop", "checkpoint", "ray")


def load(path: Path, settings: list[str] | None = None, *, look: bool = False) -> Config:
    """Read a configuration file.

    Args:
        path: A YAML file; data paths in it are relative to its folder.
        settings: Overrides as "key.path=value", values in YAML.
        look: Whether files that it names must be there.

    Returns:
        The configuration, with data paths made absolute.

    Raises:
        ConfigError: The first thing that is wrong, in one sentence.
    """
    return checked(read(path, settings), path.resolve().parent, look=look)


def read(path: Path, settings: list[str] | None = None) -> dict[str, Any]:
    """What a YAML file says, with overrides as in `load`; whether it makes sense is not looked at.

    Raises:
        ConfigError: There is no such file, it is not YAML, or an override is not one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): give the path of a YAML file.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8: give the path of a YAML file.") from error
    try:
        values = parse(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings: it should be a list of `key: value` lines.")
    for setting in settings or ():
        _override(values, setting)
    return values


def checked(values: dict[str, Any], base: Path, *, look: bool = False) -> Config:
    """The configuration that a file's values are, as far as can be said without data and model.

    Args:
        values: What the file says.
        base: The folder that data paths are relative to.
        look: Whether files that it names must be there.

    Returns:
        The configuration, with data paths made absolute.

    Raises:
        ConfigError: The first thing that is wrong, in one sentence.
    """
    config: Config = Config.read(values, "")
    config.data = replace(config.data, **{name: _absolute(getattr(config.data, name), base) for name in SPLITS})
    if config.asynchronous is not None and config.asynchronous.replay is not None:
        place = str((base / config.asynchronous.replay).resolve())
        config.asynchronous = replace(config.asynchronous, replay=place)
    if config.model.weights is not None:
        config.model = replace(config.model, weights=str((base / config.model.weights).resolve()))
    if look:
        check_places(config)
    return config


def check_places(config: Config) -> None:
    """Whether the files that a configuration names are there.

    Raises:
        ConfigError: One is not.
    """
    for name in SPLITS:
        given = getattr(config.data, name)
        for place in given if isinstance(given, list | tuple) else [given]:
            if _is_local(place) and not there(place) and not glob.glob(place):
                raise ConfigError(
                    f"data.{name} is {place!r}, but there is no such file or folder: give a path relative to the "
                    f"configuration file, or an absolute one{making(place)}."
                )
    config.model.check_place()


def _is_local(place: Any) -> bool:
    return isinstance(place, str) and "://" not in place and place not in ("digits", "digits:test")


def _absolute(place: Any, base: Path) -> Any:
    if isinstance(place, list | tuple):
        return [_absolute(one, base) for one in place]
    return str((base / place).resolve()) if _is_local(place) else place


def note_planned_rounds(config: Config, planned: int | None = None) -> None:
    """Write down the method, and what is planned over the run's rounds, to be recorded and compared on a resume.

    Args:
        config: Changed in place.
        planned: The rounds that a run which is resumed was planned over; None: `rounds`.
    """
    from pisa_ray.trainer.start import automatic_schedule

    method = resolve(config)
    schedule = config.sigma_schedule or automatic_schedule(method)
    config.sigma_schedule = schedule.over(planned or config.rounds)


def resolve(config: Config) -> Method:
    """Write down the method, where that is to suit the model, and return it.

    Raises:
        ConfigError: model.factory cannot be imported.
    """
    if config.algorithm is None:
        config.algorithm = config.model.default_method()
    return config.algorithm


def plain(config: Config) -> dict[str, Any]:
    """The configuration as it is written to config.yaml: every key with its value, defaults included."""
    written: dict[str, Any] = config.written()
    return written


def there(path: str) -> bool:
    """Whether there is a file or folder that can be looked at; no name is too long or too odd to ask."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _override(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"--set {setting} is not a setting: write --set key.path=value.")
    try:
        value = parse(text)
    except ValueError as error:
        raise ConfigError(f"--set {setting}: the value is not valid YAML ({error}).") from error
    put(values, key.strip(), value, f"--set {key}")


def put(values: dict[str, Any], key: str, value: Any, said: str) -> None:
    """Put a value in its place in a file's values, in sections that are there or are made.

    Args:
        values: The file's, changed in place.
        key: The dotted key; a name with dots, such as that of a group of parameters, is known where it is there.
        value: What to put.
        said: How a message begins.

    Raises:
        ConfigError: What is to hold it is no section.
    """
    above: list[str] = []
    while True:
        there = [name for name in values if isinstance(name, str) and (key == name or key.startswith(f"{name}."))]
        name = max(there, key=len, default=key.partition(".")[0])
        if key == name or (above[-1:] == ["groups"] and not there):
            values[key] = value
            if not there and above[-1:] == ["groups"] and "rest" in values:  # which has what no group before it has
                values["rest"] = values.pop("rest")
            return
        key = key[len(name) + 1 :]
        below = values.get(name)
        if isinstance(below, str) and (name in _NAMED or above[-1:] == ["groups"]):  # a kind alone
            below = {"kind": below}
        elif below is None:  # absent, or a section whose keys are all commented out
            below = {}
        if not isinstance(below, dict):
            place = ".".join([*above, name])
            raise ConfigError(f"{said}: {place} is {checks.shown(below)} and has no keys of its own.")
        values[name] = below
        above.append(name)
        values = below


#: Sections whose kind alone may stand for them.
_NAMED = ("algorithm", "sigma_schedule", "partition", "robust", "distort", "rest", "preconditioner", "second_moment")
