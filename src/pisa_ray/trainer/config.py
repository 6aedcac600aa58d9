"""The options of a run: what PisaTrainer takes as arguments, and what a configuration file says by key.

Each field is declared once: its type and range are its annotation, what it means is a sentence in its group's
docstring. Checks, keys, config.yaml, tables of the documentation and what a resume may change are derived from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

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
    _NAMES = checks.text | checks.sequence(checks.text, "a list of names", least=1)
    _METRICS = _FUNCTION | checks.sequence(_FUNCTION, "a list of them", least=1)
    # The second rule is for a file, which has names only.
    LossOption = Annotated[Any, _FUNCTION | checks.nothing, checks.text | checks.nothing]
    MetricsOption = Annotated[Any, _METRICS | checks.nothing, _NAMES | checks.nothing]
    ScalingOption = Annotated[Scaling, checks.Rule("", lambda name, value: Scaling.of(value))]
    RunOption = Annotated[Run, checks.Rule("", lambda name, value: Run.of(value))]

Accuracy = Annotated[float | None, checks.number(above=0, most=1) | checks.nothing]


@dataclass(frozen=True, kw_only=True)
class Problem(Options):
    """What is trained.

    Attributes:
        data: Where training, validation and test rows are.
        partition: How training rows are cut into shards: IID, LabelSkew, Dirichlet, QuantitySkew, ByColumn, ByFeature,
            FeatureNoise or Indices; or one of them Distorted by Noise, ShiftLabels, Rotate or Recolour.
        model: A module, a function that makes one (called in every process, seeded), or a `ModelSection`.
        shard_weights: alpha_i: "size" (n_i / n) or "uniform" (1 / m).
        algorithm: The method and its settings; None: NSISA() for transformers (an embedding and layer norms), SISAD()
            for others, which need none. What is left out of sigma and rho is set by the automatic start: before round 1
            the curvature of the loss is measured, at the cost of two to nine gradients of each shard's first
            mini-batch. Where sigma is and the loss explodes all the same, the run goes back to its last checkpoint or
            its start, with sigma doubled; where the loss has only turned, it goes on with sigma doubled.
        loss: (model output, targets) -> mean loss, or its name: "cross_entropy", "mse", "l1", "huber", "bce" or
            "package.module:function"; None: cross-entropy for integer targets, else mean squared error.
        metrics: (model output, targets) -> name -> one value a row, or several of them, or their names: "accuracy" or
            "package.module:function"; None: accuracy for integer targets, else none.
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
    """When what happens.

    Attributes:
        rounds: Length of the run; a resume may prolong it.
        sigma_schedule: How sigma goes: Constant, Geometric, Matched, Shape, Trapezoid, ResidualBalancing,
            LagrangianDescent, Plateau, OnlineK0 (beside which a given sigma is a hint, Auto(hint=sigma)); None: with an
            automatic start Trapezoid (SISA-D, NSISA) or Matched, else Constant.
        evaluate_every: Rounds between evaluations; the last round is always evaluated.
        stop_seconds: Stop after so many seconds of training.
        stop_test_accuracy: Stop when an evaluation reaches it.
    """

    rounds: Annotated[Rounds, FREE] = 200
    sigma_schedule: SigmaSchedule | None = None
    evaluate_every: Annotated[Count, FREE] = 20
    stop_seconds: Annotated[Limit, Key("stop.seconds"), FREE] = None
    stop_test_accuracy: Annotated[Accuracy, Key("stop.test_accuracy"), FREE] = None


@dataclass(frozen=True, kw_only=True)
class Workers(Options):
    """Who computes.

    Attributes:
        scaling_config: ray.train.ScalingConfig, or pisa_ray.Scaling, which also has patience and the like; num_workers
            an int or (min, max), which takes what there is. 0: run in this process, without Ray, with the same bits.
            None: one Ray worker. Between two rounds workers are started when there is room for more, up to max, and let
            go when their node is draining.
        ray_address: As in ray.init; None: a connected Ray, else RAY_ADDRESS, else a new local one.
        exact: Whether a resume is refused where versions or the processor are not those of the checkpoint, which may
            change last bits. If not, differences are told, and `exact` in the result is false.
    """

    scaling_config: Annotated[ScalingOption, INLINE, FREE] = field(default_factory=Scaling)
    ray_address: Annotated[str | None, Key("ray.address"), FREE] = None
    exact: Annotated[bool, FREE] = True


@dataclass(frozen=True, kw_only=True)
class Saving(Options):
    """What a run leaves, and where.

    Attributes:
        run_config: ray.train.RunConfig: name, storage_path (a folder, or a URI such as s3://bucket/prefix: then the run
            directory is runs/NAME here, and the checkpoints and copies of the other files are there),
            storage_filesystem, checkpoint_config, failure_config.max_failures: the deaths of processes that the run
            survives (-1, the default where none is given: any number); or a run directory's path, or pisa_ray's Run. A
            dead worker's shards are rebuilt on the others; no round is lost.
        checkpoint_every: Rounds between checkpoints; None: only at the end.
    """

    run_config: Annotated[RunOption, INLINE] = field(default_factory=Run)
    checkpoint_every: Annotated[Count | None, Key("checkpoint.every"), FREE] = 50


@dataclass(frozen=True, kw_only=True)
class Config(Saving, Workers, Schedule, Membership, Batching, Problem):
    """All options of a run, in groups; docs/configuration.md has their keys in a file."""

    @classmethod
    def prefix(cls) -> str:
        """See Options."""
        return ""

    @classmethod
    def spelled(cls, values: dict[str, Any], path: str) -> dict[str, Any]:
        """See Options: `algorithm` may be auto, or groups without a kind."""
        algorithm = values.get("algorithm")
        if isinstance(algorithm, dict) and "groups" in algorithm:
            if (kind := algorithm.get("kind", "grouped")) != "grouped":
                raise ConfigError(
                    f"algorithm.kind is {kind!r}, but algorithm has groups, each with a kind: leave it out."
                )
            return values | {"algorithm": {"kind": "grouped"} | algorithm}
        return values | {"algorithm": None} if algorithm in ("auto", {"kind": "auto"}) else values

    def by_key(self) -> dict[str, Any]:
        """See Options."""
        found = super().by_key() | {"model": written(ModelSection.of(self.model))}
        return found if self.algorithm is not None else found | {"algorithm": {"kind": "auto"}}

    def arguments(self) -> dict[str, Any]:
        """Return all fields by name, as PisaTrainer takes them."""
        return {one.name: getattr(self, one.name) for one in fields(Config)}

    def changed(self, **changes: Any) -> Config:
        """Return the options with other values of some."""
        return Config(**{**self.arguments(), **changes})

    @property
    def scaling(self) -> Scaling:
        """How wide the run is."""
        return cast("Scaling", self.scaling_config)

    @property
    def run(self) -> Run:
        """Where the run is, and what is kept of it."""
        return cast("Run", self.run_config)
