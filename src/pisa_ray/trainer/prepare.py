"""Makes a job of the user's data, partition and model, and refuses whatever is known to fail before it starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pisa_ray import checks
from pisa_ray.algorithm import Layout, Method
from pisa_ray.data import Preprocess, hold_out, label_distribution
from pisa_ray.data.partitions.partition import check_cut
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import borrowed_process
from pisa_ray.engine.options import Batching, Membership, PinTo
from pisa_ray.engine.participation import checked_participation
from pisa_ray.engine.user_code import refused
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.data import Opened
from pisa_ray.trainer.model import ModelSection
from pisa_ray.trainer.model_factory import model_factory, steady
from pisa_ray.trainer.objective import objective_of
from pisa_ray.trainer.probe import try_job
from pisa_ray.trainer.start import method_for

#: The names in metrics.jsonl that measure how far a round is from a solution.
RESIDUALS = ("primal_residual", "dual_residual", "consensus_residual", "consensus_move")


@dataclass(frozen=True)
class Prepared:
    """A job, with what is recorded of it and what is known of its model and data.

    Attributes:
        job: The job.
        partition: The content of partition.json.
        data_sha256: A hash of the data and of the rows of each shard.
        layout: Where the model's parameters lie in w.
        metrics: The names of all metrics of a row.
        classes: The number of the model's classes, if it is known.
        columns: The columns of inputs and labels, for data that join later.
        shard_weights: How alpha_i is computed, "size" or "uniform".
        notes: Notes for the user, though nothing is wrong.
    """

    job: Job
    partition: dict[str, Any]
    data_sha256: str
    layout: Layout
    metrics: tuple[str, ...]
    classes: int | None
    columns: tuple[str | Sequence[str] | None, str | None]
    shard_weights: str
    notes: tuple[str, ...]


def prepare(config: Config, opened: Opened | None = None) -> Prepared:
    """Open the data, cut the shards, and try the model on a few rows.

    Args:
        config: The options.
        opened: The data, if they have been opened already.

    Raises:
        ConfigError: If the run would fail for a reason that can be known now.
    """
    method = method_for(config.algorithm, config.model, config.sigma_schedule)
    if config.asynchronous is not None:
        _check_asynchronous(method, alone=config.participation == 1)
    if config.pin_to is not None and not method.remembers:
        raise ConfigError(
            f"algorithm {type(method).__name__} forgets who does not report, but pin_to needs the last messages of "
            "shards whose place is away: use PISA, SISA, SISAD, NSISA or MIFA, or leave pin_to out."
        )
    opened = opened or config.data.open(pinned=config.pin_to is not None)
    model, outputs = config.model, None
    if isinstance(model, ModelSection):
        opened = model.fed(opened, config.data.dtype)
        outputs = opened.outputs() if model.kind is not None else None
        model = model.build(opened.train.input_shape, opened.outputs)
    with refused("partition cannot cut the data", "let its split fit them"):
        cut = config.partition.split(opened.train, config.seed)
    check_cut(config.partition, cut, opened.train.rows)
    pinned(config.pin_to, len(cut))
    shards, held_out = cut, [np.empty(0, dtype=np.int64) for _ in cut]
    if opened.held_out_share is not None:
        shards, held_out = hold_out(cut, opened.held_out_share, config.seed)
    with borrowed_process(config.threads_per_worker):
        make, notes = steady(model_factory(model), config.seed)
    job = Job(
        **{one.name: getattr(config, one.name) for group in (Batching, Membership) for one in fields(group)}
        | {"participation": checked_participation(config.participation, len(cut))},
        model=make,
        objective=objective_of(config.loss, config.metrics, opened.train),
        method=method,
        train=opened.train,
        preprocess=opened.preprocess,
        shards=tuple(shards),
        alpha=_weights([len(rows) for rows in shards], config.shard_weights),
        held_out=tuple(held_out),
        distortions=tuple(distortion.fit(opened.train, len(shards)) for distortion in config.partition.distortions),
        validation=opened.validation,
        test=opened.test,
    )
    check_robust(job)
    tried, known = try_job(job, own_loss=config.loss is not None), fingerprints(job)
    for one in job.distortions:
        classes = getattr(one, "classes", None) or 0
        if tried.classes is not None and classes > tried.classes:
            raise ConfigError(
                f"{type(one).__name__}.classes is {classes}, but the model tells {tried.classes} classes apart: give "
                "at most as many, or leave it out."
            )
    return Prepared(
        job,
        {
            "data": known,
            "inputs": _describe_inputs(opened.preprocess, opened.train.input_shape, outputs),
            **_describe_partition(job),
        },
        _data_sha256(job, known),
        tried.layout,
        _metrics(job, tried.measured),
        tried.classes,
        (opened.input, opened.label),
        config.shard_weights,
        notes,
    )


def pinned(pin_to: PinTo | None, shards: int) -> tuple[str, dict[int, str]]:
    """Return the label of the sites, and the site of each pinned shard.

    Args:
        pin_to: The option: {label: [value of each shard, None for one that may be anywhere]}.
        shards: m.

    Raises:
        ConfigError: If the option does not have that form.
    """
    if pin_to is None:
        return "", {}
    if len(pin_to) != 1:
        raise ConfigError(
            f"pin_to names {len(pin_to)} node labels, but it takes one, with its value for each shard: "
            "pin_to={'site': ['lyon', 'bonn']}."
        )
    ((label, values),) = pin_to.items()
    if not isinstance(values, str):
        values = checks.sequence(checks.within, "a list with a value for each shard")(f"pin_to.{label}", values)
    if isinstance(values, str) or len(values) != shards:
        number = f"{len(values)} values" if not isinstance(values, str) else "one value"
        raise ConfigError(
            f"pin_to.{label} has {number}, but there are {shards} shards: give a value for each, or None for "
            "a shard that may be anywhere."
        )
    of = {i: value for i, value in enumerate(values) if value is not None}
    for i, value in of.items():
        if not isinstance(value, str) or not value or set(value) & set("!(), "):
            raise ConfigError(
                f"pin_to.{label}[{i}] is {value!r}, but it must be the value of a node label, such as 'lyon', or None."
            )
    if not of:
        raise ConfigError(f"pin_to.{label} has no value for any shard: leave pin_to out.")
    return label, of


def _check_asynchronous(method: Method, *, alone: bool) -> None:
    if not method.remembers:
        raise ConfigError(
            f"algorithm {type(method).__name__} forgets who does not report, but asynchronous rounds need the last "
            "messages of all shards: use PISA, SISA, SISAD, NSISA or MIFA, or leave asynchronous out."
        )
    if not alone:
        raise ConfigError(
            "participation says who reports, but in asynchronous rounds whoever has a message does: leave one of the "
            "two out."
        )


def _weights(sizes: Sequence[int], kind: str) -> tuple[float, ...]:
    """Return alpha_i = n_i / n ("size") or 1/m ("uniform"), in float64."""
    if kind == "uniform":
        return (1 / len(sizes),) * len(sizes)
    return tuple(size / sum(sizes) for size in sizes)


def check_robust(job: Job) -> None:
    """Refuse a robust consensus that does not suit the method, or would leave out no shard."""
    robust, method, name = job.robust, job.method, type(job.method).__name__
    if robust is not None and robust.clips:
        if not method.duals or getattr(method, "reset_duals", False):
            raise ConfigError(
                f"robust is Clip, which limits how shards' duals change, but {name} "
                f"{'forgets them (reset_duals)' if method.duals else 'has none'}: use TrimmedMean or Median."
            )
    elif robust is not None:
        if not method.proposes:
            raise ConfigError(
                f"robust is set, but what shards of {name} send is more than a proposal that can be left out: leave "
                "robust out, or use another algorithm, such as FedAvg."
            )
        m = len(job.present)
        lists = job.participation if isinstance(job.participation, tuple) else (job.reporters(2),)
        speakers = m if method.remembers else min(map(len, lists))
        if not robust.dropped(speakers):
            raise ConfigError(
                f"robust leaves out no shard on either side, as a round has messages of {speakers} shards only: use "
                "more, or a larger robust.share."
            )


def _metrics(job: Job, measured: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all numbers in metrics.jsonl that measure a round's model."""
    splits = ["test"] if job.test is not None else []
    if job.validation is not None or any(len(rows) for rows in job.held_out):
        splits.append("validation")
    if job.validation is None and "validation" in splits:  # each shard has rows of its own
        splits.append("validation_worst_shard")
    evaluated = [f"{split}_{name}" for split in splits for name in measured]
    dual = ("augmented_lagrangian", *RESIDUALS) if job.method.duals else ("primal_residual", "consensus_move")
    return (*evaluated, "train_loss", "worst_shard_loss", *dual)


def _describe_inputs(preprocess: Preprocess, shape: tuple[int, ...], outputs: int | None) -> dict[str, Any]:
    """Return a description of the model's inputs, by which they can be prepared again without the training data."""
    kind = str(preprocess.dtype).removeprefix("torch.")
    numbers = {"scale": preprocess.scale, "mean": preprocess.mean, "std": preprocess.std, "dtype": kind}
    return {"shape": list(shape), "outputs": outputs, **numbers}


def _describe_partition(job: Job) -> dict[str, Any]:
    """Return the rows and label counts of each shard; labels are counted only if they are classes."""
    try:
        labels = job.train.labels()
    except ConfigError:
        labels = None
    return label_distribution(job.shards, labels)


def fingerprints(data: Job | Opened) -> dict[str, str | None]:
    """Return the fingerprints of the data by split."""
    sources = {"train": data.train, "validation": data.validation, "test": data.test}
    return {split: source.fingerprint() if source else None for split, source in sources.items()}


def _data_sha256(job: Job, data: Mapping[str, str | None]) -> str:
    """Hash the fingerprints of the data and the rows of each shard."""
    digest = hashlib.sha256(json.dumps(list(data.values())).encode())
    for rows in (*job.shards, *job.held_out):
        digest.update(len(rows).to_bytes(8, "little") + np.asarray(rows, dtype="<i8").tobytes())
    return digest.hexdigest()
