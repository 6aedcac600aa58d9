"""The configuration file: its keys are the contract, checked here before anything starts."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from pisa_ray.cli.config_baselines import BaselineSection
from pisa_ray.cli.config_errors import flags_for_numbers, sentence, shown
from pisa_ray.cli.config_methods import Algorithm, AutoSection, resolved
from pisa_ray.cli.config_partition import AnyPartition
from pisa_ray.cli.config_robust import AnyRobust
from pisa_ray.cli.config_schedules import MatchedSection, OnlineK0Section, SigmaSchedule, TrapezoidSection, section_of
from pisa_ray.cli.config_section import OF_CLASS, ClassSection, Section, complete
from pisa_ray.cli.data import making
from pisa_ray.cli.factories import called, imported
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.yaml_text import parse

if TYPE_CHECKING:
    from pisa_ray.trainer.prepare import Data
    from pisa_ray.trainer.settings import Run

#: The models of this library: the keys of pisa_ray.models.KINDS.
MODELS = ("mlp", "lenet", "resnet18", "resnet34", "vgg11", "densenet121")


class DataSection(Section):
    """`data`: where rows are and how they become inputs."""

    dataset: Literal["digits"] | None = None
    train: str | None = None
    test: str | None = None
    input: str | list[str] | None = None
    label: str | None = None
    validation: float | str | None = None
    scale: float | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    transform: str | None = None
    dtype: Literal["float32", "int64"] | None = None

    def check(self) -> None:
        """Whether the keys fit together, and what they name is there.

        Raises:
            ConfigError: It is not.
        """
        if (self.dataset is None) == (self.train is None):
            raise ConfigError("data needs either train (a Parquet file or folder) or dataset: digits, and not both.")
        for name in ("test", "input", "label"):
            if self.dataset is not None and getattr(self, name) is not None:
                raise ConfigError(f"data.{name} is given, but data.dataset {self.dataset} has its own: leave it out.")
        for name in ("train", "test", "validation"):
            place = getattr(self, name)
            if isinstance(place, str) and "://" not in place and not there(place) and not glob.glob(place):
                raise ConfigError(
                    f"data.{name} is {place!r}, but there is no such file or folder: give a path relative to the "
                    f"configuration file, or an absolute one{making(place)}."
                )

    def build(self) -> Data:
        """Data as the trainer takes them."""
        from pisa_ray.trainer.prepare import Data

        self.check()
        return Data(
            train=self.dataset or self.train,
            test="digits:test" if self.dataset else self.test,
            input=self.input,
            label=self.label,
            validation=self.validation,
            scale=self.scale,
            mean=None if self.mean is None else tuple(self.mean),
            std=None if self.std is None else tuple(self.std),
            transform=None if self.transform is None else imported(self.transform, "data.transform"),
            dtype=self.dtype,
        )


class ModelSection(Section):
    """`model`: a kind of this library, or a factory of yours."""

    kind: str | None = None
    hidden: list[Annotated[int, Field(ge=1)]] | None = None
    factory: str | None = None
    args: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str | None) -> str | None:
        if kind is not None and kind not in MODELS:
            raise ValueError(f"must be one of {', '.join(MODELS)}, or use model.factory")
        return kind

    def check(self) -> None:
        """Whether the keys fit together, and weights that they name are there.

        Raises:
            ConfigError: It is not.
        """
        if (self.kind is None) == (self.factory is None):
            raise ConfigError("model needs either kind or factory (package.module:function), and not both.")
        if self.hidden is not None and self.kind != "mlp":
            raise ConfigError(f"model.hidden is for kind mlp, but model.kind is {self.kind}: leave it out.")
        if self.weights is not None and not (there(self.weights) and Path(self.weights).is_file()):
            raise ConfigError(
                f"model.weights is {self.weights!r}, but there is no such file: give the model.safetensors of a run."
            )


class WorkersSection(Section):
    """`workers: {min, max}`."""

    min: Annotated[int, Field(ge=1)] = 1
    max: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError("must be a range whose max is at least its min")
        return self


class StopSection(Section):
    """`stop`: reasons to end early."""

    seconds: Annotated[float, Field(gt=0)] | None = None
    test_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None


class CheckpointSection(Section):
    """`checkpoint`: how often, how many and which stay, and where."""

    every: Annotated[int, Field(ge=1)] | None = 50
    keep: Annotated[int, Field(ge=1)] | None = 2
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


class AsynchronousSection(ClassSection):
    """`asynchronous`: rounds that do not wait for all shards."""

    classes: ClassVar = {"": "Asynchronous"}

    quorum: Annotated[float, Field(gt=0, le=1)] = OF_CLASS
    staleness: Annotated[int, Field(ge=0)] = OF_CLASS
    deadline: Annotated[float, Field(gt=0)] | None = OF_CLASS
    replay: str | None = None

    def given(self) -> dict[str, Any]:
        """See ClassSection; the log to be repeated is no part of the rule."""
        return {name: value for name, value in super().given().items() if name != "replay"}


class RaySection(Section):
    """`ray`: where the cluster is."""

    address: str | None = None


class Config(Section):
    """The whole file."""

    name: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: DataSection
    partition: Annotated[AnyPartition, Field(discriminator="kind")]
    model: ModelSection
    algorithm: Algorithm
    sigma_schedule: SigmaSchedule | None = None
    rounds: Annotated[int, Field(ge=1)] = 200
    batch_size: Annotated[int, Field(ge=1)] | Literal["full"] = 64
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    autocast: Literal[False, "bfloat16"] = False
    shard_weights: Literal["size", "uniform"] = "size"
    participation: Annotated[float, Field(gt=0, le=1)] | list[list[int]] = 1.0
    asynchronous: AsynchronousSection | None = None
    pin_to: dict[str, list[str | None]] | None = None
    robust: Annotated[AnyRobust, Field(discriminator="kind")] | None = None
    evaluate_every: Annotated[int, Field(ge=1)] = 20
    workers: Annotated[int, Field(ge=0)] | WorkersSection = 1
    threads_per_worker: Annotated[int, Field(ge=1)] = 1
    compiled: bool | None = None
    cpus_per_worker: Annotated[float, Field(ge=0)] = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    worker_labels: dict[str, str] = Field(default_factory=dict)
    patience: Annotated[float, Field(ge=0)] = 300.0
    frozen_after: Annotated[float, Field(gt=0)] = 30.0
    max_failures: Annotated[int, Field(ge=-1)] = -1
    exact: bool = True
    stop: StopSection = Field(default_factory=StopSection)
    checkpoint: CheckpointSection = Field(default_factory=CheckpointSection)
    ray: RaySection = Field(default_factory=RaySection)


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
    """The configuration that a file's values are, if what it stands for can be built.

    Args:
        values: What the file says.
        base: The folder that data paths are relative to.
        look: Whether files that it names must be there.

    Returns:
        The configuration, with data paths made absolute.

    Raises:
        ConfigError: The first thing that is wrong, in one sentence.
    """
    config = read_sections(values, base)
    if look:
        config.data.check()
        config.model.check()
    if isinstance(config.algorithm, BaselineSection):  # whose optimizer may not take its options
        try:
            config.algorithm.build()
        except ValueError as error:
            given, why = shown(values["algorithm"]), str(error).removesuffix(".")
            raise ConfigError(f"algorithm is {given}, but it must be settings that fit together: {why}.") from error
    return config


def read_sections(values: dict[str, Any], base: Path) -> Config:
    """The configuration that a file's values are, as far as can be said without torch.

    Args:
        values: What the file says.
        base: The folder that data paths are relative to.

    Returns:
        The configuration, with data paths made absolute.

    Raises:
        ConfigError: The first thing that is wrong, in one sentence.
    """
    values = {key: value for key, value in values.items() if value is not None or key not in _OPTIONAL}
    values = {"algorithm": {"kind": "auto"}} | values
    if isinstance(values["algorithm"], dict) and "groups" in values["algorithm"]:  # which need no kind
        values["algorithm"] = {"kind": "grouped"} | values["algorithm"]
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(sentence(error, values, Config)) from error
    for key, flag in flags_for_numbers(values, config.model_dump(by_alias=True, exclude_unset=True)):
        raise ConfigError(f"{key} is {shown(flag)}, but it must be a number.")
    for name in ("train", "test", "validation"):
        value = getattr(config.data, name)
        if isinstance(value, str) and "://" not in value:
            setattr(config.data, name, str((base / value).resolve()))
    if config.asynchronous is not None and config.asynchronous.replay is not None:
        config.asynchronous.replay = str((base / config.asynchronous.replay).resolve())
    if config.model.weights is not None:
        config.model.weights = str((base / config.model.weights).resolve())
    return config


def resolve(config: Config) -> None:
    """Write down the method, where that is to suit the model.

    Raises:
        ConfigError: model.factory cannot be imported.
    """
    if isinstance(config.algorithm, AutoSection):
        factory = imported(config.model.factory, "model.factory") if config.model.factory is not None else None
        make = None if factory is None else called(factory, config.model.args)
        config.algorithm = resolved(config.algorithm, make)


def note_planned_rounds(config: Config, planned: int | None = None) -> None:
    """Write down the method, and what is planned over the run's rounds, to be recorded and compared on a resume.

    Args:
        config: Changed in place.
        planned: The rounds that a run which is resumed was planned over; None: `rounds`.
    """
    resolve(config)
    if config.sigma_schedule is None:
        from pisa_ray.trainer.start import automatic_schedule

        config.sigma_schedule = section_of(automatic_schedule(config.algorithm.build()))
    schedule = config.sigma_schedule
    if isinstance(schedule, MatchedSection | TrapezoidSection | OnlineK0Section) and schedule.rounds is None:
        schedule.rounds = planned or config.rounds


def plain(config: Config) -> dict[str, Any]:
    """The configuration as it is written to config.yaml: every key with its value, defaults included."""
    complete(written := config.model_copy(deep=True))
    return written.model_dump(by_alias=True)


def there(path: str) -> bool:
    """Whether there is a file or folder that can be looked at; no name is too long or too odd to ask."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _override(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    *parents, last = parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {setting} is not a setting: write --set key.path=value.")
    for i, parent in enumerate(parents):
        if values.get(parent) is None:  # absent, or a section whose keys are all commented out
            values[parent] = {}
        below = values[parent]
        if not isinstance(below, dict):
            above = ".".join(parents[: i + 1])
            raise ConfigError(f"--set {key}: {above} is {shown(below)} and has no keys of its own.")
        values = below
    try:
        values[last] = parse(text)
    except ValueError as error:
        raise ConfigError(f"--set {setting}: the value is not valid YAML ({error}).") from error
