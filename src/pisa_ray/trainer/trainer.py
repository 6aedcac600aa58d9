"""PisaTrainer: Ray Train's vocabulary around the round loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from pisa_ray.algorithm import Method
from pisa_ray.data import Partition
from pisa_ray.engine.fleet import Fleet, LocalFleet
from pisa_ray.engine.job import Job, Loss, Metrics
from pisa_ray.engine.numerics import borrowed_process
from pisa_ray.errors import PisaError, WorkerDiedError
from pisa_ray.schedulers import Constant, SigmaSchedule
from pisa_ray.trainer import checkpoint
from pisa_ray.trainer.checkpoint import Progress
from pisa_ray.trainer.describe import check_resumable, describe
from pisa_ray.trainer.display import Display
from pisa_ray.trainer.interrupt import stop_requests
from pisa_ray.trainer.loop import Loop, Schedule
from pisa_ray.trainer.prepare import Data, Opened, prepare
from pisa_ray.trainer.result import Result
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.settings import Run, Scaling

if TYPE_CHECKING:
    from ray.train import RunConfig, ScalingConfig


class PisaTrainer:
    """Trains a model with PISA, SISA, NSISA or SISA-D over shards of data that Ray workers host.

    The result is a function of the arguments, the data and the seed; `scaling_config` changes the time it takes only.

    Args:
        model: A module, or a function that makes one (called in every process, seeded).
        data: Where training, validation and test rows are.
        partition: How training rows are cut into shards: IID, LabelSkew, Dirichlet, QuantitySkew, ByColumn,
            FeatureNoise or Indices.
        algorithm: The method and its settings; None: SISAD(), which needs the least tuning.
        rounds: Length of the run.
        loss: (model output, targets) -> mean loss; None: cross-entropy for integer targets, else mean squared error.
        evaluate: (model output, targets) -> name -> one value a row; None: accuracy for integer targets.
        batch_size: Rows per shard and round; None: the whole shard.
        micro_batch_size: Rows per backward pass; None: the whole batch.
        clip_norm: Largest norm of a shard's gradient; None: any.
        autocast: Forward passes in bfloat16 autocast; parameters, duals and sums stay float32.
        shard_weights: alpha_i: "size" (n_i / n) or "uniform" (1 / m).
        sigma_schedule: Growth of sigma; None: constant.
        seed: Seed of everything: initial weights, partition, batches, dropout.
        evaluate_every: Rounds between evaluations; the last is always evaluated.
        checkpoint_every: Rounds between checkpoints; None: only at the end.
        stop_seconds: Stop after so many seconds of training.
        stop_test_accuracy: Stop when an evaluation reaches it.
        threads_per_worker: Threads of a worker's numeric work; part of the result's definition, never derived.
        scaling_config: ray.train.ScalingConfig; num_workers an int or (min, max), which takes what there is. 0: run in
            this process, without Ray, with the same bits. None: one Ray worker.
        run_config: ray.train.RunConfig: name, storage_path (a local or shared folder), checkpoint_config.num_to_keep,
            failure_config.max_failures. A worker's death restarts the run from its last checkpoint, at most
            max_failures times (-1, the default where none is given: any number).
        resume: Go on from the last checkpoint of the run of that name; without one, start from round 0 and say so.
        ray_address: As in ray.init; None: a connected Ray, else RAY_ADDRESS, else a new local one.
        progress: Whether progress is shown on standard error.
        config: What config.yaml records and a resume compares; None: a description of the arguments.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from pisa_ray import Data, LabelSkew, PisaTrainer, SISA
        >>> from pisa_ray.models import mlp
        >>> trainer = PisaTrainer(
        ...     model=lambda: mlp((64,), 10), data=Data(train="digits", test="digits:test"), rounds=20,
        ...     partition=LabelSkew(shards=10, labels=1), algorithm=SISA(sigma=0.3, rho=30), scaling_config=0,
        ...     run_config=Path(tempfile.mkdtemp()) / "run", progress=False)
        >>> trainer.fit().status
        'finished'
    """

    def __init__(
        self,
        *,
        model: nn.Module | Callable[[], nn.Module],
        data: Data | Opened,
        partition: Partition,
        rounds: int,
        algorithm: Method | None = None,
        loss: Loss | None = None,
        evaluate: Metrics | None = None,
        batch_size: int | None = 64,
        micro_batch_size: int | None = None,
        clip_norm: float | None = None,
        autocast: bool = False,
        shard_weights: str = "size",
        sigma_schedule: SigmaSchedule | None = None,
        seed: int = 0,
        evaluate_every: int = 20,
        checkpoint_every: int | None = 50,
        stop_seconds: float | None = None,
        stop_test_accuracy: float | None = None,
        threads_per_worker: int = 1,
        scaling_config: ScalingConfig | Scaling | int | None = None,
        run_config: RunConfig | Run | Path | str | None = None,
        resume: bool = False,
        ray_address: str | None = None,
        progress: bool = True,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._scaling, self._run = Scaling.of(scaling_config), Run.of(run_config)
        self._schedule = Schedule(
            rounds,
            sigma_schedule or Constant(),
            evaluate_every,
            checkpoint_every,
            self._run.keep,
            stop_seconds,
            stop_test_accuracy,
        )
        self._prepared = prepare(
            model=model,
            data=data,
            partition=partition,
            algorithm=algorithm,
            loss=loss,
            evaluate=evaluate,
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            clip_norm=clip_norm,
            autocast=autocast,
            shard_weights=shard_weights,
            threads=threads_per_worker,
            seed=seed,
        )
        job = self._prepared.job
        self._config = config or {
            "seed": seed,
            "data": describe(data),
            "partition": describe(partition),
            "model": describe(model),
            "objective": describe(job.objective),
            "algorithm": describe(job.method),
            "sigma_schedule": describe(self._schedule.sigma),
            "rounds": rounds,
            "batch_size": batch_size,
            "micro_batch_size": micro_batch_size,
            "clip_norm": clip_norm,
            "autocast": autocast,
            "shard_weights": shard_weights,
            "threads_per_worker": threads_per_worker,
            "evaluate_every": evaluate_every,
            "workers": describe(self._scaling),
        }
        self._resume, self._address, self._quiet = resume, ray_address, not progress

    def fit(self) -> Result:
        """Train to the end, or to a reason to stop.

        Returns:
            The last row's metrics, the history and the run directory.

        Raises:
            ConfigError: The run directory holds a run, or what is to be resumed does not fit.
            NonFiniteError: Training went to NaN or infinity; the last good checkpoint stays.
            PisaError: A worker failed, or died more often than max_failures.
        """
        directory = RunDirectory(self._run.path)
        resuming = self._resume and directory.holds_a_run()
        if resuming:
            check_resumable(directory.config(), self._config)
        else:
            directory.create(self._config)
            directory.write("partition.json", self._prepared.partition)
        failures = 0
        with stop_requests() as stop_requested:
            while True:
                try:
                    return self._attempt(directory, stop_requested, resuming)
                except WorkerDiedError as error:
                    failures += 1
                    directory.add_event("worker_died", self._last_round(directory), message=str(error))
                    if 0 <= self._run.max_failures < failures:
                        self._fail(directory, error)
                        raise
                    resuming = True
                except PisaError as error:
                    self._fail(directory, error)
                    raise

    def _attempt(self, directory: RunDirectory, stop_requested: Callable[[], bool], resuming: bool) -> Result:
        """Start a fleet, from a checkpoint where there is one, and run the loop on it."""
        job, schedule = self._prepared.job, self._schedule
        last = checkpoint.latest(directory.checkpoints) if resuming else None
        progress = last.progress if last else Progress(sigma=job.method.sigma)
        display = Display(schedule.rounds, progress.round, quiet=self._quiet)
        with self._fleet(job) as fleet:
            if last:
                last.restore(fleet, self._prepared.data_sha256)
            if resuming:
                directory.cut_back(progress.round)
                directory.add_event("resumed", progress.round, checkpoint=last.path.name if last else None)
                display.say(
                    f"resuming at round {progress.round}"
                    if last
                    else f"{directory.path} has no complete checkpoint: starting from round 0"
                )
            for worker, info in enumerate(fleet.workers()):
                directory.add_event(
                    "worker_started", progress.round, worker=worker, pid=info.pid, node=info.node, device=info.device
                )
            rows = list(directory.rows())
            loop = Loop(
                job,
                fleet,
                schedule,
                directory,
                self._prepared.data_sha256,
                display,
                stop_requested,
                progress,
                rows[-1] if rows else {},
            )
            try:
                status = loop.run()
            finally:
                display.close()
            digest = fleet.export(progress.round, str(directory.model.resolve()))
        metrics = self._end(
            directory,
            status,
            {
                "rounds": progress.round,
                **loop.last_row,
                **progress.best,
                "weights_sha256": digest,
                "seconds": progress.seconds,
                "gradient_seconds": progress.gradient_seconds,
            },
        )
        saved = checkpoint.latest(directory.checkpoints)
        return Result(status, metrics, directory.path, saved.path if saved else directory.checkpoints)

    @contextmanager
    def _fleet(self, job: Job) -> Iterator[Fleet]:
        """The processes that compute, for as long as they are needed."""
        scaling = self._scaling
        if scaling.most == 0:
            with borrowed_process(job.threads):
                yield LocalFleet(job, gpu=scaling.gpus > 0)
            return
        # Here, so that a run without workers needs no Ray.
        from pisa_ray.actors import RayFleet, RayResources, ray_session  # noqa: PLC0415

        resources = RayResources(scaling.cpus, scaling.gpus, scaling.other)
        with ray_session(scaling.least, scaling.most, resources, self._address) as workers:
            fleet = RayFleet(job, workers, resources)
            try:
                yield fleet
            finally:
                fleet.close()

    def _end(self, directory: RunDirectory, status: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        metrics = {"name": self._config.get("name", directory.path.name), "status": status, **fields}
        directory.write("result.json", metrics)
        directory.add_event(status, int(fields.get("rounds", self._last_round(directory))))
        return metrics

    def _fail(self, directory: RunDirectory, error: PisaError) -> None:
        *_, last = [{}, *directory.rows()]
        self._end(directory, "failed", {"message": str(error), "rounds": last.get("round", 0), **last})

    def _last_round(self, directory: RunDirectory) -> int:
        return max((int(row["round"]) for row in directory.rows()), default=0)
