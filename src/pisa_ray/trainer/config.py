"""The options of a run: the arguments of PisaTrainer, which a configuration file gives by key.

Each field is declared once: its type and range are in its annotation, its meaning is in its group's docstring. Checks,
keys, config.yaml, tables of the documentation and what a resume may change are derived from that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, cast

from pisa_ray import checks
from pisa_ray.algorithm.method import Method
from pisa_ray.data.partitions.partition import Partition
from pisa_ray.engine.options import Batching, Membership
from pisa_ray.errors import ConfigError
from pisa_ray.fields import FREE, INLINE, Count, Key, Limit
from pisa_ray.options import Options, written
from pisa_ray.schedulers.schedule import Rounds, SigmaSchedule
from pisa_ray.trainer.data import Data
from pisa_ray.trainer.model import Model, ModelSection
from pisa_ray.trainer.settings import Run, Scaling

if TYPE_CHECKING:
    from ray.train import RunConfig, ScalingConfig

    from pisa_ray.engine.job import Loss, Metrics

    LossOption: TypeAlias = Loss | str | None
    MetricsOption: TypeAlias = Metrics | str | Sequence[Metrics | str] | None
    ScalingOption: TypeAlias = ScalingConfig | Scaling | int | None
    RunOption: TypeAlias = RunConfig | Run | Path | str | None
else:
    _FUNCTION = checks.text | checks.function
    _NAMES = checks.text | checks.sequence(checks.text, "a list of at least one name", least=1)
    _METRICS = _FUNCTION | checks.sequence(_FUNCTION, "a list of them", least=1)
    # The second rule is for a file, which has names only.
    LossOption = Annotated[Any, _FUNCTION | checks.nothing, checks.text | checks.nothing]
    MetricsOption = Annotated[Any, _METRICS | checks.nothing, _NAMES | checks.nothing]
    ScalingOption = Annotated[Scaling, checks.Rule("", lambda name, value: Scaling.of(value))]
    RunOption = Annotated[Run, checks.Rule("", lambda name, value: Run.of(value))]

Accuracy = Annotated[float | None, checks.number(above=0, most=1) | checks.nothing]


@dataclass(frozen=True, kw_only=True)
class Problem(Options):
    """The problem.

    Attributes:
        data: The rows for training, validation and tests, and how they become inputs.
        partition: The cut of the training rows into shards.
        model: The model, in Python a module or a function that makes one, which is called in every process with the
            same seed.
        shard_weights: alpha_i, the weight of a shard in the sum: "size" is its share of the rows, "uniform" the same
            for all.
        algorithm: The method; None: NSISA for transformers (models with an embedding and layer norms), else SISAD,
            neither of which needs numbers. What is left out of sigma and rho is set by the automatic start, which takes
            two to nine gradients of the first mini-batch of each shard before round 1. If the loss explodes all the
            same, the run goes back to its last checkpoint or to its start, with sigma doubled; if it only turns, the
            run goes on with sigma doubled.
        loss: A function (model output, targets) -> the mean loss of a mini-batch, or its name: "cross_entropy", "mse",
            "l1", "huber", "bce" or "package.module:function". None: cross-entropy for integer labels, else mean squared
            error.
        metrics: A function (model output, targets) -> values by name, one per row, or its name: "accuracy" or
            "package.module:function"; or a list of such. Rows of a run have their means as `test_NAME` and
            `validation_NAME`. None: accuracy for integer labels, else none.
    """

    data: Data
    partition: Partition
    model: Model
    shard_weights: Literal["size", "uniform"] = "size"
    algorithm: Method | None = None
    loss: LossOption = None
    metrics: MetricsOption = None


@dataclass(frozen=True, kw_only=True)
class Schedule(Options):
    """The course of a run.

    Attributes:
        rounds: The length of the run; a resume may make it longer.
        sigma_schedule: How sigma goes from round to round, and for baselines how the learning rate falls. None: after
            an automatic start Trapezoid (for SISAD and NSISA) or Matched, else Constant.
        evaluate_every: The rounds from one evaluation to the next; the last round is always evaluated.
        stop_seconds: The seconds of training after which the run ends, with status `stopped`; None: there is no limit.
        stop_test_accuracy: The accuracy on test rows at which the run ends, with status `stopped`; it is refused if
            evaluations do not measure it. None: there is none.
    """

    rounds: Annotated[Rounds, FREE] = 200
    sigma_schedule: SigmaSchedule | None = None
    evaluate_every: Annotated[Count, FREE] = 20
    stop_seconds: Annotated[Limit, Key("stop.seconds"), FREE] = None
    stop_test_accuracy: Annotated[Accuracy, Key("stop.test_accuracy"), FREE] = None


@dataclass(frozen=True, kw_only=True)
class Workers(Options):
    """The workers.

    Attributes:
        scaling_config: ray.train.ScalingConfig, or pisa_ray.Scaling, which also has patience and the like; num_workers
            an int or (min, max), which takes what there is. 0: run in this process, without Ray, with the same bits.
            None: one Ray worker. Between two rounds workers are started when there is room for more, up to max, and let
            go when their node is draining.
        ray_address: The cluster, as in ray.init: "host:port", "auto" (the one that runs on this machine) or "local" (a
            new one). None: a connected Ray, else the one that RAY_ADDRESS names, else a new one on this machine.
        exact: Whether a resume is refused if it has other versions (torch, numpy), another processor or another GPU
            than the checkpoint, which may change last bits. False: a message tells the differences, and `exact` in the
            result is False.
    """

    scaling_config: Annotated[ScalingOption, INLINE, FREE] = field(default_factory=Scaling)
    ray_address: Annotated[str | None, Key("ray.address"), FREE] = None
    exact: Annotated[bool, FREE] = True


@dataclass(frozen=True, kw_only=True)
class Saving(Options):
    """The files of a run.

    Attributes:
        run_config: ray.train.RunConfig: name, storage_path (a folder, or a URI such as s3://bucket/prefix: then the run
            directory is runs/NAME here, and the checkpoints and copies of the other files are there),
            storage_filesystem, checkpoint_config, failure_config.max_failures: the deaths of processes that the run
            survives (-1, the default where none is given: any number); or a run directory's path, or pisa_ray's Run. A
            dead worker's shards are rebuilt on the others; no round is lost.
        checkpoint_every: The rounds from one checkpoint to the next; there is always one at the end. None: there is no
            other.
    """

    run_config: Annotated[RunOption, INLINE] = field(default_factory=Run)
    checkpoint_every: Annotated[Count | None, Key("checkpoint.every"), FREE] = 50


@dataclass(frozen=True, kw_only=True)
class Config(Saving, Workers, Schedule, Membership, Batching, Problem):
    """All options of a run, in groups; docs/configuration.md has their keys in a file."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        "scaling_config": "workers",
        "run_config": "name",
        "evaluate": "metrics",
        "replay": "asynchronous.replay",
        **{name: f"algorithm.{name}" for name in ("sigma", "rho", "lambda", "optimizer", "lr", "local_steps")},
        "shards": "partition.shards",
        "labels": "partition.labels",
    }

    @classmethod
    def prefix(cls) -> str:
        """Override `Options.prefix`: messages name the field alone."""
        return ""

    @classmethod
    def spelled(cls, values: dict[str, Any], path: str) -> dict[str, Any]:
        """Override `Options.spelled`: `algorithm` may be auto, or groups without a kind."""
        algorithm = values.get("algorithm")
        if isinstance(algorithm, dict) and "groups" in algorithm:
            if (kind := algorithm.get("kind", "grouped")) != "grouped":
                raise ConfigError(
                    f"algorithm.kind is {kind!r}, but algorithm has groups, each with a kind: leave it out."
                )
            return values | {"algorithm": {"kind": "grouped"} | algorithm}
        return values | {"algorithm": None} if algorithm in ("auto", {"kind": "auto"}) else values

    def by_key(self) -> dict[str, Any]:
        """Override `Options.by_key`: add the model and an automatic algorithm."""
        found = super().by_key() | {"model": written(ModelSection.of(self.model))}
        return found if self.algorithm is not None else found | {"algorithm": {"kind": "auto"}}

    def arguments(self) -> dict[str, Any]:
        """Return all fields by name, as PisaTrainer takes them."""
        return {one.name: getattr(self, one.name) for one in fields(Config)}

    def changed(self, **changes: Any) -> Config:
        """Return a copy of the options with other values for some."""
        return Config(**{**self.arguments(), **changes})

    @property
    def scaling(self) -> Scaling:
        """The number of workers and their resources."""
        return cast("Scaling", self.scaling_config)

    @property
    def run(self) -> Run:
        """The run directory, and what is kept in it."""
        return cast("Run", self.run_config)
