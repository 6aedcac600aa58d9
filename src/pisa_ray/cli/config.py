"""The configuration file: its keys are the contract, checked here before anything starts."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pisa_ray.cli.config_methods import Algorithm, SigmaSchedule
from pisa_ray.data import (
    IID,
    ByColumn,
    Dirichlet,
    FeatureNoise,
    Indices,
    LabelSkew,
    Partition,
    QuantitySkew,
)
from pisa_ray.errors import ConfigError
from pisa_ray.models import KINDS
from pisa_ray.trainer import Data


class Section(BaseModel):
    """Part of the file: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


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

    def build(self) -> Data:
        """Data as the trainer takes them."""
        if (self.dataset is None) == (self.train is None):
            raise ConfigError("data needs either train (a Parquet file or folder) or dataset: digits, and not both.")
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
        )


Shards = Annotated[int, Field(ge=1)]


class IIDSection(Section):
    """`partition: {kind: iid}`."""

    kind: Literal["iid"]
    shards: Shards

    def build(self) -> Partition:
        """As the trainer takes it."""
        return IID(self.shards)


class LabelsSection(Section):
    """`partition: {kind: labels_per_shard}`."""

    kind: Literal["labels_per_shard"]
    shards: Shards
    labels: Annotated[int, Field(ge=1)] = 1

    def build(self) -> Partition:
        """As the trainer takes it."""
        return LabelSkew(self.shards, self.labels)


class DirichletSection(Section):
    """`partition: {kind: dirichlet}` and `{kind: quantity}`."""

    kind: Literal["dirichlet", "quantity"]
    shards: Shards
    alpha: Annotated[float, Field(gt=0)] = 0.5
    min_rows: Annotated[int, Field(ge=1)] = 10

    def build(self) -> Partition:
        """As the trainer takes it."""
        return (Dirichlet if self.kind == "dirichlet" else QuantitySkew)(self.shards, self.alpha, self.min_rows)


class ColumnSection(Section):
    """`partition: {kind: by_column}`."""

    kind: Literal["by_column"]
    column: str

    def build(self) -> Partition:
        """As the trainer takes it."""
        return ByColumn(self.column)


class NoiseSection(Section):
    """`partition: {kind: feature_noise}`."""

    kind: Literal["feature_noise"]
    shards: Shards
    level: Annotated[float, Field(ge=0)]

    def build(self) -> Partition:
        """As the trainer takes it."""
        return FeatureNoise(self.shards, self.level)


class IndicesSection(Section):
    """`partition: {kind: indices}`."""

    kind: Literal["indices"]
    shards: list[list[int]]

    def build(self) -> Partition:
        """As the trainer takes it."""
        return Indices(tuple(tuple(rows) for rows in self.shards))


AnyPartition = IIDSection | LabelsSection | DirichletSection | ColumnSection | NoiseSection | IndicesSection


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
        if kind is not None and kind not in KINDS:
            raise ValueError(f"must be one of {', '.join(KINDS)}, or use model.factory")
        return kind


class WorkersSection(Section):
    """`workers: {min, max}`."""

    min: Annotated[int, Field(ge=1)] = 1
    max: Annotated[int, Field(ge=1)]


class StopSection(Section):
    """`stop`: reasons to end early."""

    seconds: Annotated[float, Field(gt=0)] | None = None
    test_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None


class CheckpointSection(Section):
    """`checkpoint`: how often, and how many stay."""

    every: Annotated[int, Field(ge=1)] | None = 50
    keep: Annotated[int, Field(ge=1)] | None = 2


class RaySection(Section):
    """`ray`: where the cluster is."""

    address: str | None = None


class Config(Section):
    """The whole file."""

    name: str | None = None
    seed: int = 0
    data: DataSection
    partition: Annotated[AnyPartition, Field(discriminator="kind")]
    model: ModelSection
    algorithm: Algorithm
    sigma_schedule: SigmaSchedule
    rounds: Annotated[int, Field(ge=1)] = 200
    batch_size: Annotated[int, Field(ge=1)] | Literal["full"] = 64
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    autocast: Literal[False, "bfloat16"] = False
    shard_weights: Literal["size", "uniform"] = "size"
    participation: float = 1.0
    evaluate_every: Annotated[int, Field(ge=1)] = 20
    workers: Annotated[int, Field(ge=0)] | WorkersSection = 1
    threads_per_worker: Annotated[int, Field(ge=1)] = 1
    cpus_per_worker: Annotated[float, Field(ge=0)] = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    max_failures: Annotated[int, Field(ge=-1)] = -1
    stop: StopSection = Field(default_factory=StopSection)
    checkpoint: CheckpointSection = Field(default_factory=CheckpointSection)
    ray: RaySection = Field(default_factory=RaySection)

    @field_validator("participation")
    @classmethod
    def _all_report(cls, share: float) -> float:
        if share != 1:
            raise ValueError("must be 1.0: rounds in which only some shards report are not supported yet")
        return share


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as everybody expects."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load(path: Path, settings: list[str] | None = None) -> Config:
    """Read a configuration file.

    Args:
        path: A YAML file; data paths in it are relative to its folder.
        settings: Overrides as "key.path=value", values in YAML.

    Returns:
        The configuration, with data paths made absolute.

    Raises:
        ConfigError: The first thing that is wrong, in one sentence.
    """
    try:
        values = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): give the path of a YAML file.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings: it should be a list of `key: value` lines.")
    for setting in settings or ():
        _override(values, setting)
    values.setdefault("algorithm", {"kind": "sisa_d"})
    values.setdefault("sigma_schedule", {"kind": "constant"})
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error, values)) from error
    base = path.resolve().parent
    for name in ("train", "test", "validation"):
        value = getattr(config.data, name)
        if isinstance(value, str) and "://" not in value:
            setattr(config.data, name, str((base / value).resolve()))
    if config.model.weights is not None:
        config.model.weights = str((base / config.model.weights).resolve())
    return config


def plain(config: Config) -> dict[str, Any]:
    """The configuration as it is written to config.yaml: every key with its value, defaults included."""
    return config.model_dump(by_alias=True)


def imported(reference: str, key: str) -> Callable[..., Any]:
    """The function that "package.module:name" names.

    Raises:
        ConfigError: There is no such function.
    """
    module, _, name = reference.partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key} is {reference!r}, but it must be 'package.module:function' ({error}).") from error
    return function


def _override(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(f"--set {setting} has no '=': write --set key.path=value.")
    *parents, last = key.strip().split(".")
    for parent in parents:
        below = values.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {key}: {parent} is {below!r} and has no keys of its own.")
        values = below
    try:
        values[last] = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: the value is not valid YAML.") from error


def _sentence(error: ValidationError, values: Mapping[str, Any]) -> str:
    """The first error, for people: which key, what it is, what it should be."""
    first = error.errors()[0]
    path, kind, context = _path(first["loc"], values), first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_beside(path, values)
        near = difflib.get_close_matches(path[-1], known, n=1)
        return f"{'.'.join(path)} is not a setting: " + (f"did you mean {near[0]}?" if near else f"use {_any(known)}.")
    if kind == "missing":
        return f"{'.'.join([*path, str(first['loc'][-1])])} is missing: it has no default."
    if kind == "union_tag_not_found":
        return f"{'.'.join(path)}.kind is missing: it chooses among {_any(_kinds(path[0]))}."
    if kind == "union_tag_invalid":
        return f"{'.'.join(path)}.kind is {context['tag']!r}, but it must be {_any(_kinds(path[0]))}."
    rule = re.sub(r"^(Value error, |Input )", "", first["msg"]).replace("should be", "must be")
    return f"{'.'.join(path)} is {first['input']!r}, but it {rule}."


def _path(location: tuple[int | str, ...], values: Any) -> list[str]:
    """The keys of a location that are in the file; pydantic puts names of its union members between them."""
    path = []
    for part in location:
        if (isinstance(values, dict) and part in values) or (isinstance(values, list) and isinstance(part, int)):
            values = values[part]
        else:
            continue
        path.append(str(part))
    return path


def _members(key: str) -> list[type[BaseModel]]:
    """The sections that a top-level key can hold."""
    annotation = Config.model_fields[key].annotation
    return [m for m in get_args(annotation) or (annotation,) if isinstance(m, type) and issubclass(m, BaseModel)]


def _kinds(key: str) -> list[str]:
    return [kind for member in _members(key) for kind in get_args(member.model_fields["kind"].annotation)]


def _known_beside(path: list[str], values: Mapping[str, Any]) -> list[str]:
    """The settings that exist where an unknown one was found."""
    models: list[type[BaseModel]] = [Config]
    if len(path) > 1:
        kind = values[path[0]].get("kind") if isinstance(values[path[0]], dict) else None
        fits = [
            m for m in _members(path[0]) if kind in get_args(getattr(m.model_fields.get("kind"), "annotation", None))
        ]
        models = fits or _members(path[0])
    return [field.alias or name for model in models for name, field in model.model_fields.items()]


def _any(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
