"""The configuration file: its keys are the contract, checked here before anything starts."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from pisa_ray.cli.config_methods import Algorithm, Section, SigmaSchedule
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
        for name in ("test", "input", "label"):
            if self.dataset is not None and getattr(self, name) is not None:
                raise ConfigError(f"data.{name} is given, but data.dataset {self.dataset} has its own: leave it out.")
        for name in ("train", "test", "validation"):
            place = getattr(self, name)
            if isinstance(place, str) and "://" not in place and not Path(place).exists():
                raise ConfigError(
                    f"data.{name} is {place!r}, but there is no such file or folder: give a path relative to the "
                    "configuration file, or an absolute one."
                )
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
    shards: Annotated[list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]], Field(min_length=1)]

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
    """`checkpoint`: how often, and how many stay."""

    every: Annotated[int, Field(ge=1)] | None = 50
    keep: Annotated[int, Field(ge=1)] | None = 2


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
    """YAML in which 1e-3 is a number, as everybody expects, and a key that is there twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See yaml.SafeLoader."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                mark = node.value[i][0].start_mark
                raise yaml.constructor.ConstructorError(problem=f"the key {key} is there twice", problem_mark=mark)
        return super().construct_mapping(node, deep)


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
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): give the path of a YAML file.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8: give the path of a YAML file.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_problem(error)}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings: it should be a list of `key: value` lines.")
    for setting in settings or ():
        _override(values, setting)
    return checked(values, path.resolve().parent)


def checked(values: dict[str, Any], base: Path) -> Config:
    """The configuration that a file's values are.

    Args:
        values: What the file says.
        base: The folder that data paths are relative to.

    Returns:
        The configuration, with data paths made absolute.

    Raises:
        ConfigError: The first thing that is wrong, in one sentence.
    """
    values = {key: value for key, value in values.items() if value is not None or key not in OPTIONAL}
    values = {"algorithm": {"kind": "sisa_d"}, "sigma_schedule": {"kind": "constant"}} | values
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error, values)) from error
    for key, flag in _flags_for_numbers(values, plain(config)):
        raise ConfigError(f"{key} is {_shown(flag)}, but it must be a number.")
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
    except Exception as error:  # whatever the user's module raises when it is imported
        raise ConfigError(
            f"{key} is {reference!r}, but it must be 'package.module:function' ({type(error).__name__}: {error})."
        ) from error
    if not callable(function):
        raise ConfigError(f"{key} is {reference!r}, but that is a {type(function).__name__}: name a function.")
    return function


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
            raise ConfigError(f"--set {key}: {above} is {_shown(below)} and has no keys of its own.")
        values = below
    try:
        values[last] = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: the value is not valid YAML ({_problem(error)}).") from error


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem or error.context} in line {error.problem_mark.line + 1}"
    return " ".join(str(error).split())


#: Sections that may be left empty: their defaults apply.
OPTIONAL = ("algorithm", "sigma_schedule", "stop", "checkpoint", "ray")

_EXAMPLES = {
    "data": ", such as data: {dataset: digits}",
    "partition": ", such as partition: {kind: iid, shards: 10}",
    "model": ", such as model: {kind: mlp}",
}

#: What a value must be, by pydantic's name of the error.
_RULES = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "finite_number": "a finite number",
    "string_type": "text",
    "list_type": "a list, such as [1, 2]",
    "dict_type": "a section of `key: value` lines",
    "too_short": "a list of at least {min_length} item",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
}


def _sentence(error: ValidationError, values: Mapping[str, Any]) -> str:
    """The error that helps most, for people: which key, what it is, what it should be."""
    errors = [(_path(e["loc"], values), e) for e in error.errors()]
    # A misspelt key comes before the one that is missing therefore; what is wrong inside a section before the section.
    unknown = [(path, e) for path, e in errors if e["type"] == "extra_forbidden"]
    path, first = unknown[0] if unknown else max(errors, key=lambda e: (e[0][:1] == errors[0][0][:1], _depth(*e)))
    key, kind = ".".join(path), first["type"]
    if kind == "extra_forbidden":
        known = _keys(_sections(path[:-1], values))
        near = difflib.get_close_matches(path[-1], known, n=1)
        return f"{key} is not a setting: " + (f"the nearest one is {near[0]}." if near else f"use {_any(known)}.")
    if kind == "missing":
        name = str(first["loc"][-1])
        kinds = _kinds(_sections(path, values)) if name == "kind" else []
        remedy = f": use {_any(kinds)}" if kinds else f" and has no default: add it{_EXAMPLES.get(name, '')}"
        return f"{'.'.join([*path, name])} is missing{remedy}."
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        choice = _any(_kinds(_sections(path, values)))
        if kind == "union_tag_not_found":
            return f"{key}.kind is missing: use {choice}."
        return f"{key}.kind is {first['ctx']['tag']!r}, but it must be {choice}."
    members = [e for other, e in errors if other == path]  # more than one where a key may hold different things
    members = [e for e in members if e["type"] == "value_error"][:1] or members
    rules = dict.fromkeys(_rule(e, _sections(path, values)) for e in members)
    return f"{key} is {_shown(first['input'])}, but it must be {' or '.join(rules)}."


def _depth(path: list[str], error: Any) -> int:
    return len(path) + int(error["type"] == "missing")


def _rule(error: Any, sections: list[type[BaseModel]]) -> str:
    """What one error asks for, as it goes on after "must be"."""
    kind = error["type"]
    if kind.startswith("model_") and sections:
        kinds = _kinds(sections)
        keys = " and ".join(filter(None, [", ".join(_keys(sections)[:-1]), _keys(sections)[-1]]))
        return f"a section such as {{kind: {kinds[0]}}}" if kinds else f"a section with {keys}"
    rule = _RULES.get(kind)
    if kind == "string_type" and isinstance(error["input"], int | float):
        return "text in quotes"
    if rule is None:
        return re.sub(r"^(Value error, must be |Input should be )", "", error["msg"])
    return rule.format(**error.get("ctx", {})).replace("False", "false")


def _shown(value: Any) -> str:
    """A value as YAML writes it, cut short."""
    text = {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _flags_for_numbers(given: Any, read: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Where true or false was given and taken for 1 or 0."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key in given:
            yield from _flags_for_numbers(given[key], read[key], f"{prefix}{key}.")
    elif isinstance(given, list) and isinstance(read, list):
        for i, item in enumerate(given):
            yield from _flags_for_numbers(item, read[i], f"{prefix}{i}.")
    elif isinstance(given, bool) and not isinstance(read, bool):
        yield prefix.rstrip("."), given


def _path(location: tuple[int | str, ...], values: Any) -> list[str]:
    """The keys of a location that are in the file; pydantic puts names of its union members between them."""
    path = []
    for part in location:
        there = part in values if isinstance(values, dict) else isinstance(values, list) and isinstance(part, int)
        if there:
            values = values[part]
            path.append(str(part))
    return path


def _sections(path: list[str], values: Any) -> list[type[BaseModel]]:
    """The sections that may stand at a path: one where its kind says which."""
    models: list[type[BaseModel]] = [Config]
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
        kind = values.get("kind") if isinstance(values, dict) else None
        below = [
            member
            for model in models
            for name, field in model.model_fields.items()
            if key in (name, field.alias)
            for member in _models(field.annotation)
        ]
        models = [model for model in below if kind in _kinds([model])] or below
    return models


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _keys(sections: list[type[BaseModel]]) -> list[str]:
    return list(dict.fromkeys(field.alias or name for s in sections for name, field in s.model_fields.items()))


def _kinds(sections: list[type[BaseModel]]) -> list[str]:
    """The names that choose among sections; model.kind is none, as it leaves the keys as they are."""
    fields = [section.model_fields["kind"] for section in sections if "kind" in section.model_fields]
    return [kind for field in fields for kind in get_args(field.annotation) if isinstance(kind, str)]


def _any(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
