"""The place and the workers of a run, from Ray Train's configs or plain values; they do not change the result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, cast

from annotated_types import Ge, Le

from pisa_ray import checks
from pisa_ray.errors import ConfigError
from pisa_ray.fields import FREE, Count, Key, NotNegative, Positive, rule, under
from pisa_ray.options import Options, read

if TYPE_CHECKING:
    from ray.train import RunConfig, ScalingConfig

    from pisa_ray.engine.files import Folder
    from pisa_ray.trainer.checkpoint import Keep

#: The type of a number of workers.
Number = Annotated[int, Ge(0), Le(10**6)]

_WORKERS = rule(Number)
_URI = "a URI such as s3://bucket/prefix; for a local or shared folder use run_config"


_RESOURCES = checks.mapping(checks.number(least=0), "a dictionary of Ray resources, such as {'gold': 1}")
_LABELS = checks.mapping(checks.text, "a dictionary of node labels, such as {'zone': 'a'}")


def _storage(name: str, value: Any) -> Any:
    if value is None:
        return None
    return value if isinstance(value, str) and "://" in value and not value.startswith("file:") else checks.NOT


@dataclass(frozen=True, kw_only=True)
class Range(Options):
    """A number of workers that may change while a run goes on.

    Attributes:
        min: The fewest workers to start and to go on with.
        max: The most workers; there are as many as the cluster has room for, also when it grows during the run.
    """

    min: Count = 1
    max: Count

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max < self.min:
            raise ConfigError(
                f"Range.min is {self.min} and Range.max {self.max}, but it must be a range whose max is at least its "
                "min."
            )


@dataclass(frozen=True)
class Scaling(Options):
    """The number of workers, and the resources of each.

    Attributes:
        least: The fewest workers to start and to go on with; 0: this process, without Ray.
        most: The most workers; there are as many as the cluster has room for.
        cpus: The CPU cores that a worker reserves in Ray.
        gpus: The GPUs that a worker reserves; a worker with one computes on it.
        other: Further Ray resources of a worker, by name.
        labels: Which nodes workers may be on, by labels of Ray: "value", "!value", `in(a, b)` or `!in(a, b)`.
        accelerator: The kind of GPU, as Ray names it, such as A100; None: any.
        spread: Whether nodes without a worker are preferred.
        patience: The seconds to wait if the cluster has no room for the fewest workers, at the start and later; then
            the run ends and can be resumed. There is no wait for a Ray that was started for the run, as it does not
            grow.
        frozen_after: The seconds without a sign of life after which a process counts as dead.
        look_every: The seconds between two looks for room for more workers.
        workers: In a file, the number of Ray workers, or a section with the fewest and the most; 0: this process,
            without Ray, with the same bits.
    """

    beside: ClassVar[Mapping[str, Any]] = {"workers": Number | Range}

    least: Annotated[Number, Key("")] = 1
    most: Annotated[Number, Key("")] = 1
    cpus: Annotated[NotNegative, Key("cpus_per_worker")] = 1.0
    gpus: Annotated[NotNegative, Key("gpus_per_worker")] = 0.0
    other: Annotated[dict[str, float], _RESOURCES, Key("resources_per_worker")] = field(default_factory=dict)
    labels: Annotated[dict[str, str], _LABELS, Key("worker_labels")] = field(default_factory=dict)
    accelerator: str | None = None
    spread: Annotated[bool, Key("spread_workers")] = False
    patience: NotNegative = 300.0
    frozen_after: Positive = 30.0
    look_every: NotNegative = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least > self.most:
            raise ConfigError(
                f"the number of workers is {self.least} to {self.most}, but the first may not be above the second."
            )
        if self.least == 0 and self.most > 0:
            raise ConfigError(
                f"the number of workers is 0 to {self.most}: use 0 for this process alone, or at least 1."
            )

    @classmethod
    def spelled(cls, values: dict[str, Any], path: str) -> dict[str, Any]:
        """Override `Options.spelled`: `workers` is a number, or {min, max}."""
        if "workers" not in values:
            return values
        workers = read(cls.beside["workers"], values.pop("workers"), under(path, "workers"))
        least, most = (workers.min, workers.max) if isinstance(workers, Range) else (workers, workers)
        return values | {"least": least, "most": most}

    def by_key(self) -> dict[str, Any]:
        """Override `Options.by_key`: add `workers`."""
        workers = self.most if self.least == self.most else {"min": self.least, "max": self.most}
        return {"workers": workers, **super().by_key()}

    @classmethod
    def of(cls, config: ScalingConfig | Scaling | int | None) -> Scaling:
        """Make one of a ray.train.ScalingConfig or a number of workers; None: one worker."""
        if isinstance(config, Scaling):
            return config
        if not _has(config, "num_workers", "placement_strategy"):
            workers = (_WORKERS | _one_of("a ray.train.ScalingConfig, a pisa_ray.Scaling"))("scaling_config", config)
            return cls(1, 1) if workers is None else cls(workers, workers)
        config = cast("ScalingConfig", config)
        _refuse("ScalingConfig", config, ("use_tpu", "topology"))
        if config.placement_strategy not in ("PACK", "SPREAD"):
            raise ConfigError(
                f"ScalingConfig.placement_strategy is {config.placement_strategy!r}, but workers come and go one by "
                "one: use 'PACK' or 'SPREAD', or a label_selector."
            )
        labels: Any = getattr(config, "label_selector", None) or {}
        if not isinstance(labels, dict):
            raise ConfigError("ScalingConfig.label_selector must be one dictionary, the same for all workers.")
        every: Any = getattr(config, "elastic_resize_monitor_interval_s", None)
        several = checks.sequence(_WORKERS, "a pair of them")
        number = (_WORKERS | several)("ScalingConfig.num_workers", config.num_workers)
        least, most = number if isinstance(number, tuple) and len(number) == 2 else (number, number)
        gpu = checks.flag("ScalingConfig.use_gpu", config.use_gpu)
        resources = checks.mapping(checks.number(least=0), "a dictionary such as {'CPU': 2}") | checks.nothing
        named = resources("ScalingConfig.resources_per_worker", config.resources_per_worker)
        each = dict(named or ({"GPU": 1} if gpu else {"CPU": 1}))
        return cls(
            least,
            most,
            each.pop("CPU", 0.0),
            each.pop("GPU", float(gpu)),
            each,
            labels,
            config.accelerator_type,
            config.placement_strategy == "SPREAD",
            # Ray Train's default of a minute suits resizes that restart everything; it counts as not given.
            look_every=cls.look_every if every in (None, 60.0) else every,
        )


if TYPE_CHECKING:
    StoredIn: TypeAlias = Folder | None
else:
    StoredIn = Any


@dataclass(frozen=True)
class Run(Options):
    """The folder of a run, and what is kept there.

    Attributes:
        path: The run directory itself, on a local disk; None: a new one in runs/, named by the time.
        keep: How many checkpoints stay; None: all.
        max_failures: How many deaths of processes the run survives; the shards are rebuilt on others. -1: any number.
        best_by: The metric, such as "validation_accuracy", by whose value in the last row before each was saved the
            best checkpoints stay; the newest, from which a run is resumed, always does. None: the newest stay.
        order: Whether the best value is the largest, "max", or the smallest, "min".
        storage_path: The URI of a folder elsewhere, such as in an object store, in which a folder with the name of the
            run directory takes the checkpoints and copies of the other files; None: they are in the run directory.
        storage: The run's folder there, if it is given as such.
        name: The name of the run in reports; None: that of the run directory.
    """

    path: Annotated[Path | None, Key("")] = None
    keep: Annotated[Count | None, Key("checkpoint.keep"), FREE] = 2
    max_failures: Annotated[int, Ge(-1), FREE] = -1
    best_by: Annotated[str | None, Key("checkpoint.best_by"), FREE] = None
    order: Annotated[Literal["max", "min"], Key("checkpoint.order"), FREE] = "max"
    storage_path: Annotated[str | None, checks.Rule(_URI, _storage), Key("checkpoint.storage")] = None
    storage: Annotated[StoredIn, Key("")] = None
    name: Annotated[str | None, FREE] = None

    def placed(self) -> Run:
        """Return a copy with a path, and with the folder in the storage that follows from it."""
        from pisa_ray.engine.files import Folder

        path = self.path or Path(_new_place())
        elsewhere = self.storage
        if elsewhere is None and self.storage_path is not None:
            elsewhere = Folder.of(self.storage_path) / path.resolve().name
        return replace(self, path=path, storage=elsewhere)

    @property
    def folder(self) -> Path:
        """The run directory of a run that has been placed."""
        assert self.path is not None  # noqa: S101  (for the type checker)
        return self.path

    @property
    def kept(self) -> Keep:
        """Which checkpoints stay."""
        from pisa_ray.trainer.checkpoint import Keep

        return Keep(self.keep, self.best_by, self.order)

    def by_key(self) -> dict[str, Any]:
        """Override `Options.by_key`: add the storage."""
        above = self.storage_path or (self.storage and str(self.storage.above))
        return super().by_key() | {"checkpoint.storage": above}

    @classmethod
    def of(cls, config: RunConfig | Run | os.PathLike[str] | str | None) -> Run:
        """Make one of a ray.train.RunConfig, a path, or the URI of a run's folder.

        If the storage is not a local disk, the run directory is runs/NAME under the current folder, and the storage has
        the checkpoints and copies of the small files.
        """
        if isinstance(config, Run):
            return config
        if config is None:
            return cls()
        from pisa_ray.engine.files import Folder

        if not _has(config, "storage_path", "failure_config"):
            place = (checks.path | _one_of("a ray.train.RunConfig"))("run_config", config)
            return cls._at(Folder.of(place)) if "://" in place else cls(Path(place))
        config = cast("RunConfig", config)
        _refuse("RunConfig", config, ("callbacks", "worker_runtime_env"))
        failures, checkpoints = config.failure_config, config.checkpoint_config
        # Ray fills in its defaults, under which nothing is retried and all is kept; they count as not given.
        given = None if checkpoints is None or checkpoints == type(checkpoints)() else checkpoints
        name = checks.folder_name("RunConfig.name", config.name)
        storage = checks.path("RunConfig.storage_path", config.storage_path)
        folder = Folder.of(storage, config.storage_filesystem)
        return cls._at(
            Folder(f"{folder.path}/{name}", folder.filesystem),
            keep=given.num_to_keep if given else cls.keep,
            max_failures=cls.max_failures
            if failures is None or failures == type(failures)()
            else failures.max_failures,
            best_by=given.checkpoint_score_attribute if given else None,
            order=given.checkpoint_score_order if given else cls.order,
        )

    @classmethod
    def _at(cls, folder: Folder, **fields: Any) -> Run:
        if folder.is_local:
            return cls(Path(folder.path), **fields)
        return cls(Path("runs") / folder.name, storage=folder, **fields)


_TAKEN: set[str] = set()


def _new_place() -> str:
    """Return a new run directory, named by the time, and by a number if that name is taken."""
    place = name = f"runs/{datetime.now():%Y-%m-%d_%H-%M-%S}"
    number = 1
    while name in _TAKEN or Path(name).exists():
        number += 1
        name = f"{place}-{number}"
    _TAKEN.add(name)
    return name


def _has(config: object, *fields: str) -> bool:
    """Return whether an object is a config of Ray Train, which is known by its fields, without importing Ray."""
    return not isinstance(config, type) and all(hasattr(config, name) for name in fields)


def _one_of(text: str) -> checks.Rule:
    """Return a rule for None, whose text also names the classes that were accepted before."""
    return checks.Rule(f"{text} or None", checks.nothing.take)


def _refuse(name: str, config: object, fields: tuple[str, ...]) -> None:
    """Refuse settings of Ray Train that this library does not support, instead of ignoring them.

    Raises:
        ConfigError: If one is set.
    """
    for field_ in fields:
        if getattr(config, field_, None):
            raise ConfigError(f"{name}.{field_} is set, but pisa_ray does not support it yet: leave it out.")
