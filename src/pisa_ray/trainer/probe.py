"""A trial of the user's model, loss, metrics and transform, before anything is started.

The model is evaluated on two and on three rows of the smallest shard, and trained twice on the smallest batch of the
run. The process is left as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from pisa_ray.algorithm import Layout
from pisa_ray.data import Rows
from pisa_ray.data.purity import equal
from pisa_ray.engine.batch import ShardBatch
from pisa_ray.engine.evaluation import evaluate_rows
from pisa_ray.engine.flat_model import FlatModel
from pisa_ray.engine.job import Job, Objective
from pisa_ray.engine.numerics import borrowed_process, seed_all
from pisa_ray.engine.user_code import refused
from pisa_ray.errors import ConfigError, PisaError
from pisa_ray.trainer.input_types import type_named
from pisa_ray.trainer.labels import check_classes
from pisa_ray.trainer.watched_loss import WatchedObjective, described

#: The largest relative difference of two gradients of one batch, which allows for rounding only.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Tried:
    """The results of the trial.

    Attributes:
        layout: Where the parameters lie in w.
        measured: The names of the metrics of an evaluation.
        classes: The number of classes, if it is known.
    """

    layout: Layout
    measured: tuple[str, ...]
    classes: int | None


def try_job(job: Job, *, own_loss: bool) -> Tried:
    """Evaluate and train on a few rows, as the workers will.

    Args:
        job: The job.
        own_loss: Whether the user has given the loss.

    Raises:
        ConfigError: If the user's code raises, returns the wrong thing, or returns different things for one seed.
    """
    with borrowed_process(job.threads_per_worker):
        before = _process()
        try:
            model = job.build_model()
            objective = WatchedObjective(job.objective, own=own_loss, look=partial(check_classes, job))
            _Trial(replace(job, objective=Objective(objective.loss, objective.metrics)), model, objective).run()
        except ConfigError:
            raise
        except PisaError as error:  # an error that may also come up during a run
            raise ConfigError(str(error)) from error
        after = _process()
        for name, old in before.items():
            if old != after[name]:
                raise ConfigError(
                    f"the model, loss, metrics or transform change {name} of the whole process, from {old} to "
                    f"{after[name]}, so that results would depend on which process runs what: leave it as it is."
                )
    plain = job.objective.loss is functional.cross_entropy
    return Tried(model.layout, ("loss", *(objective.names or ())), objective.output.shape[1] if plain else None)


def _process() -> dict[str, object]:
    return {
        "the number of threads (torch.set_num_threads; the run's is threads_per_worker)": torch.get_num_threads(),
        "torch's default type": torch.get_default_dtype(),
        "whether torch records gradients": torch.is_grad_enabled(),
    }


class _Trial:
    def __init__(self, job: Job, model: FlatModel, objective: WatchedObjective) -> None:
        self._job, self._model, self._objective = job, model, objective
        self._initial = model.published()
        objective.parameters = model.parameters

    def run(self) -> None:
        job = self._job
        shard, size = _smallest_batch(job)
        rows = job.train.read(job.shards[shard][: max(3, size)])
        for number in (2, 3):  # a shape that fits one number of rows by chance does not fit the other
            self._evaluate(rows.take(np.arange(number) % len(rows)), "data.train")
        for name, source in (("data.test", job.test), ("data.validation", job.validation)):
            if source is not None:
                self._evaluate(source.read(np.arange(min(2, source.rows))), name)
        self._train(rows, size, shard)

    def _inputs(self, rows: Rows, *, training: bool) -> torch.Tensor:
        """Return the model's inputs; the user's transform is applied twice and must return the same."""
        job = self._job
        found = []
        for _ in range(1 if job.preprocess.transform is None else 2):
            x, _ = rows.batch(np.arange(len(rows)))
            with refused(f"data.transform cannot be applied to inputs {described(x)}", "give one that fits the data"):
                seed_all(job.seed, "augment", 0, 0)
                found.append(job.preprocess(x, training=training))
            if not isinstance(found[-1], torch.Tensor) or len(found[-1]) != len(rows):
                raise ConfigError(
                    f"data.transform returns something {described(found[-1])} for {len(rows)} inputs, but it must "
                    "return a tensor with a row for each: keep the first dimension."
                )
        if not equal(found[0], found[-1]):
            raise ConfigError(
                "data.transform gives other numbers each time, even from one seed, so that results would depend on "
                "which process runs what: draw random numbers from torch's, numpy's or Python's global generators, "
                "which are seeded for each batch."
            )
        self._objective.inputs, self._objective.training = found[0], training
        return found[0]

    def _evaluate(self, rows: Rows, data: str) -> None:
        x = self._inputs(rows, training=False)
        self._model.reset(0)
        seed_all(self._job.seed, "evaluate probe", 0)
        stored, _ = rows.batch(np.arange(len(rows)))
        named = type_named(self._model.module, self._job.preprocess, stored)
        with refused(f"model cannot be applied to {data}, inputs {described(x)}", _FITS), named:
            evaluate_rows(self._model, self._job, rows)

    def _train(self, rows: Rows, size: int, shard: int) -> None:
        job, model = self._job, self._model
        batch = self._batch(rows.take(np.arange(size)), shard)
        for distortion in job.distortions:
            distortion.check(batch.inputs)
        given = f"a batch of {size} row{'s' * (size > 1)}, inputs {described(batch.inputs)}"
        untouched = batch.inputs._version
        with refused(f"model cannot be trained on {given}", _FITS if size > 1 else _LARGER):
            first = batch.gradient(model.w).clone()
            model.check_tensors()
            left = model.unaveraged_buffers()
            again = batch.gradient(model.w).clone()
        for slot in model.layout.slots:
            if not bool(torch.isfinite(first[slot.part]).all()):
                raise ConfigError(
                    f"the gradient of parameter {slot.name} is not finite at the initial model, on {given}, although "
                    f"the loss is {batch.loss:g}: look for what has no derivative there, such as sqrt at 0."
                )
        if batch.inputs._version != untouched and not torch.equal(first, again):
            raise ConfigError(
                "model changes its inputs in place, so that the same batch is another one the next time: let it "
                "begin with x.clone(), or use no function that ends with _ on them."
            )
        if float((first - again).norm()) > ROUNDING * float(first.norm()):
            raise ConfigError(
                "model gives another gradient each time on one batch, even from one seed, so that results would depend "
                "on which process runs what: draw random numbers from torch's, numpy's or Python's global generators, "
                "and keep nothing from one forward pass to the next (in attributes, say)."
            )
        if left:
            self._batch(rows.take(np.full(size, len(rows) - 1)), shard).gradient(model.w)
            _check_kept(left, model.unaveraged_buffers())
        _try_method(job, model, batch)

    def _batch(self, rows: Rows, shard: int) -> ShardBatch:
        """Return a mini-batch, with the initial buffers and the same seed each time."""
        job, model = self._job, self._model
        x, (_, y) = self._inputs(rows, training=True), rows.batch(np.arange(len(rows)))

        def begin() -> None:
            model.reset(0)
            seed_all(job.seed, "forward", shard, 0)

        model.load(self._initial)
        model.module.train()
        return ShardBatch(model, job, x, y, model.buffers.clone(), begin, probes=0)


def _check_kept(left: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Refuse unaveraged buffers that depend on the batch, as only the first shard's are kept."""
    for name, buffer in left.items():
        if not torch.allclose(buffer, other[name], rtol=1e-4, atol=1e-6, equal_nan=True):
            raise ConfigError(
                f"model keeps in its buffer {name} what it has seen of the data, but shards see different data, and "
                "only buffers whose names begin with running_ are averaged over them: name it so if a mean is right, "
                "or register it with persistent=False, so that each forward pass begins anew."
            )


#: The remedy if the model raises.
_FITS = "make the model fit the data, or the data (data.input, data.transform) fit the model"
#: The remedy if it raises on a single row, in which BatchNorm finds no variance.
_LARGER = f"use larger batches (batch_size, micro_batch_size, fewer shards), or {_FITS}"


def _smallest_batch(job: Job) -> tuple[int, int]:
    """Return the shard with the smallest batch, or piece of one, and the number of its rows."""
    sizes = [job.batch_rows(i) for i in range(len(job.shards))]
    micro = job.micro_batch_size
    pieces = [min(size, micro, size % micro or micro) if micro else size for size in sizes]
    smallest = min(range(len(pieces)), key=pieces.__getitem__)
    return smallest, pieces[smallest]


def _try_method(job: Job, model: FlatModel, batch: ShardBatch) -> None:
    """Refuse a method that does not fit the model, such as one that needs second derivatives."""
    method = job.method
    try:
        method.initial_memory(model.layout)
        method.check(model.layout)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"algorithm.optimizer does not fit this model: {error}.") from error
    for asked in method.asks():
        with refused(asked.wrong, asked.remedy):
            asked.ask(batch, model.w)
