"""PisaTrainer: Ray Train's vocabulary around the round loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import nn

from pisa_ray import checks
from pisa_ray.algorithm import Method, Robust, number
from pisa_ray.data import Partition
from pisa_ray.engine.asynchrony import Arrivals, Asynchronous, read_arrivals
from pisa_ray.engine.fleet import Fleet
from pisa_ray.engine.job import Loss, Metrics
from pisa_ray.errors import ConfigError, NonFiniteError, PisaError, RayLostError, StatesLostError, StoppedWaitingError
from pisa_ray.schedulers import SigmaSchedule
from pisa_ray.trainer import checkpoint
from pisa_ray.trainer.arguments import ARGUMENTS
from pisa_ray.trainer.changes import Asked, Changes
from pisa_ray.trainer.checkpoint import Checkpoint, Keep, check_environment
from pisa_ray.trainer.data import Data, Opened
from pisa_ray.trainer.describe import check_data, check_resumable, describe, settings
from pisa_ray.trainer.display import Display
from pisa_ray.trainer.events import Events
from pisa_ray.trainer.interrupt import StopRequests
from pisa_ray.trainer.loop import Loop, Schedule
from pisa_ray.trainer.manifest import Progress
from pisa_ray.trainer.places import FleetFactory, Places
from pisa_ray.trainer.prepare import PinTo, pinned, prepare
from pisa_ray.trainer.result import Result
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.settings import Run, Scaling
from pisa_ray.trainer.start import (
    automatic_schedule,
    found_numbers,
    found_sigma,
    is_automatic,
    measured,
    method_for,
    with_numbers,
)
from pisa_ray.trainer.steps import Steps
from pisa_ray.trainer.storage import check_storage
from pisa_ray.trainer.watch import Watch, below_the_edge

if TYPE_CHECKING:
    from ray.train import RunConfig, ScalingConfig

#: Losses of states, and doublings of sigma, in a row without a newer checkpoint after which a run is given up (and a
#: loss that has only risen is let be).
PATIENCE, DOUBLINGS = 3, 10


class PisaTrainer:
    """Trains a model with PISA, SISA, NSISA or SISA-D over shards of data that Ray workers host.

    The result is a function of the arguments, the data and the seed; `scaling_config` changes the time it takes only.

    Args:
        model: A module, or a function that makes one (called in every process, seeded).
        data: Where training, validation and test rows are.
        partition: How training rows are cut into shards: IID, LabelSkew, Dirichlet, QuantitySkew, ByColumn,
            ByFeature, FeatureNoise or Indices; or one of them Distorted by Noise, ShiftLabels, Rotate or Recolour.
        algorithm: The method and its settings; None: NSISA() for transformers (an embedding and layer norms), SISAD()
            for others, which need none. What is left out of sigma and rho is set by the automatic start: before round 1
            the curvature of the loss is measured, at the cost of two to nine gradients of each shard's first
            mini-batch. Where sigma is and the loss explodes all the same, the run goes back to its last checkpoint or
            its start, with sigma doubled; where the loss has only turned, it goes on with sigma doubled.
        rounds: Length of the run.
        loss: (model output, targets) -> mean loss, or its name: "cross_entropy", "mse", "l1", "huber", "bce" or
            "package.module:function"; None: cross-entropy for integer targets, else mean squared error.
        evaluate: (model output, targets) -> name -> one value a row, or several of them, or their names: "accuracy" or
            "package.module:function"; None: accuracy for integer targets, else none.
        batch_size: Rows of a mini-batch (one per shard and round, but for methods with local steps); None: the whole
            shard.
        micro_batch_size: Rows per backward pass; None: the whole batch.
        clip_norm: Largest norm of a shard's gradient; None: any.
        autocast: Forward passes in bfloat16 autocast; parameters, duals and sums stay float32.
        shard_weights: alpha_i: "size" (n_i / n) or "uniform" (1 / m).
        participation: Share p of the m shards that report in a round: max(1, round(p m)) of them, keyed (seed, round);
            in round 1 all. Or lists of shards, [[0, 1], [2, 3]], for round 2, 3 and so on, from the first again after
            the last. For methods with a memory of all shards (duals, MIFA, SyncOptimizer(remember=True)) the last
            messages of the others stay in the sum; the other methods average over those who report.
        asynchronous: When a round ends without waiting for all shards; None: it does wait. Which messages arrived when
            is logged in arrivals.jsonl. In one process (scaling_config 0) all do.
        replay: The arrivals.jsonl of an asynchronous run that is to be repeated, to the bit.
        pin_to: A node label, and for each shard its value where the shard must stay, as its rows may not leave:
            {"site": ["lyon", "bonn", None]}; None: anywhere. It is trained and evaluated by workers on such nodes only
            (`ray start --labels site=lyon`), and while there is none it does not report: its last message stays in the
            sum, and its state is kept elsewhere, as it was when it was last safe. Only for methods with a memory of all
            shards. Every place needs a worker, so there are at least as many; one that is away is not waited for,
            whatever the minimum. Data should be files, since what this process holds travels to all. It reads what it
            needs to cut the shards (labels, say), a mini-batch of the smallest one to try the model, and what a hash of
            the files takes; of a torch data set, which is in this process anyway, some items.
        robust: What is done against bad shards: TrimmedMean, Median or Clip; None: nothing. The first two need what
            every shard sends by itself, so workers send more.
        sigma_schedule: How sigma goes: Constant, Geometric, Matched, Shape, Trapezoid, ResidualBalancing,
            LagrangianDescent, Plateau, OnlineK0 (beside which a given sigma is a hint, Auto(hint=sigma)); None: with an
            automatic start Trapezoid (SISA-D, NSISA) or Matched, else Constant.
        seed: Seed of everything: initial weights, partition, batches, dropout.
        evaluate_every: Rounds between evaluations; the last is always evaluated.
        checkpoint_every: Rounds between checkpoints; None: only at the end.
        stop_seconds: Stop after so many seconds of training.
        stop_test_accuracy: Stop when an evaluation reaches it.
        threads_per_worker: Threads of a worker's numeric work; part of the result's definition, never derived.
        compiled: Whether steps are compiled to one pass over memory, which changes no bit. None: what the user's cache
            has is used, and what moves so many entries that it pays is compiled meanwhile; True: at once; False: never.
        scaling_config: ray.train.ScalingConfig, or pisa_ray.Scaling, which also has patience and the like; num_workers
            an int or (min, max), which takes what there is. 0: run in this process, without Ray, with the same bits.
            None: one Ray worker. Between two rounds workers are started when there is room for more, up to max, and let
            go when their node is draining.
        run_config: ray.train.RunConfig: name, storage_path (a folder, or a URI such as s3://bucket/prefix: then the run
            directory is runs/NAME here, and the checkpoints and copies of the other files are there),
            storage_filesystem, checkpoint_config, failure_config.max_failures: deaths of processes to put up with (-1,
            the default where none is given: any number); or a run directory's path. A dead worker's shards are rebuilt
            on the others; no round is lost.
        resume: Go on from the last checkpoint of the run of that name; without one, start from round 0 and say so.
        overwrite: Replace the run of that name, if there is one and nobody is at work on it, when round 1 begins.
        exact: Whether a resume is refused where versions or the processor are not those of the checkpoint, which may
            change last bits. If not, differences are told, and `exact` in the result is false.
        ray_address: As in ray.init; None: a connected Ray, else RAY_ADDRESS, else a new local one.
        progress: Whether progress is shown on standard error.
        warn: Whether it is told when a given sigma is below the edge of stability at the initial model, which takes a
            few gradients more that are not counted, and when sigma grows so fast that w freezes.
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

    @checks.arguments(**ARGUMENTS)
    def __init__(
        self,
        *,
        model: nn.Module | Callable[[], nn.Module],
        data: Data | Opened,
        partition: Partition,
        rounds: int,
        algorithm: Method | None = None,
        loss: Loss | str | None = None,
        evaluate: Metrics | str | Sequence[Metrics | str] | None = None,
        batch_size: int | None = 64,
        micro_batch_size: int | None = None,
        clip_norm: float | None = None,
        autocast: bool = False,
        shard_weights: str = "size",
        participation: float | Sequence[Sequence[int]] = 1.0,
        asynchronous: Asynchronous | None = None,
        replay: Path | str | None = None,
        pin_to: PinTo | None = None,
        robust: Robust | None = None,
        sigma_schedule: SigmaSchedule | None = None,
        seed: int = 0,
        evaluate_every: int = 20,
        checkpoint_every: int | None = 50,
        stop_seconds: float | None = None,
        stop_test_accuracy: float | None = None,
        threads_per_worker: int = 1,
        compiled: bool | None = None,
        scaling_config: ScalingConfig | Scaling | int | None = None,
        run_config: RunConfig | Run | Path | str | None = None,
        resume: bool = False,
        overwrite: bool = False,
        exact: bool = True,
        ray_address: str | None = None,
        progress: bool = True,
        warn: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if resume and overwrite:
            raise ConfigError("resume=True goes on with a run, but overwrite=True replaces it: use one of the two.")
        self._scaling, self._run, self._overwrite = Scaling.of(scaling_config), Run.of(run_config), overwrite
        algorithm = method_for(algorithm, model, sigma_schedule)
        # What nobody has named stays as it was planned when the run began, also where it is prolonged.
        planned = self._directory().planned_rounds() if resume and sigma_schedule is None else None
        sigma_schedule = self.schedule_of(sigma_schedule, algorithm, planned or rounds)
        self._schedule = Schedule(
            rounds,
            sigma_schedule,
            evaluate_every,
            checkpoint_every,
            Keep(self._run.keep, self._run.best_by, self._run.order),
            stop_seconds,
            stop_test_accuracy,
        )
        if not resume:
            self._directory().check_free()  # before data are read
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
            participation=participation,
            asynchronous=asynchronous,
            pin_to=pin_to,
            robust=robust,
            threads=threads_per_worker,
            compiled=compiled,
            seed=seed,
        )
        job, score = self._prepared.job, self._run.best_by
        self._schedule.sigma.check(
            job.method.duals, type(job.method).__name__, job.asynchronous is None, self._prepared.metrics
        )
        self._pins = pinned(pin_to, len(job.shards))
        self._check_places(replaying=replay is not None)
        self._replay: Arrivals | None = None
        if replay is not None:
            if asynchronous is None:
                raise ConfigError("replay repeats an asynchronous run: give asynchronous as that run had it.")
            self._replay = read_arrivals(Path(replay), len(job.shards), asynchronous.staleness)
            if rounds > len(self._replay):
                raise ConfigError(f"rounds is {rounds}, but the log to be repeated has {len(self._replay)}.")
        if stop_test_accuracy is not None and "test_accuracy" not in self._prepared.metrics:
            raise ConfigError(
                f"stop_test_accuracy is {stop_test_accuracy:g}, but this run does not measure test_accuracy and would "
                "never stop by it: give test data, and an evaluate that returns 'accuracy', or leave it out."
            )
        if score is not None and score not in self._prepared.metrics:
            raise ConfigError(
                f"checkpoint_score_attribute is {score!r}, but this run does not measure that: use one of "
                f"{', '.join(self._prepared.metrics)}."
            )
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
            "participation": describe(job.participation),
            "asynchronous": describe(asynchronous),
            "pin_to": describe(pin_to),
            "robust": describe(robust),
            "threads_per_worker": threads_per_worker,
            "compiled": compiled,
            "evaluate_every": evaluate_every,
            "exact": exact,
            "checkpoint": {"storage": str(self._run.storage) if self._run.storage else None},
            "workers": describe(self._scaling),
        }
        self._identity = {
            "data_sha256": self._prepared.data_sha256,
            "parameters": [[slot.name, list(slot.shape)] for slot in self._prepared.layout.slots],
            "rules": job.method.moved(self._prepared.layout),
            "shards": len(job.shards),
            "settings": settings(self._config),
        }
        self._resume, self._exact, self._quiet = resume, exact, not progress
        self._places = Places(
            self._scaling,
            job.threads,
            self._pins,
            self._run.max_failures,
            exact,
            ray_address,
            self._replay,
        )
        self._resize: int | None = None
        self._warn = warn
        self._changes = Changes(self._prepared, replaying=replay is not None)

    @staticmethod
    def schedule_of(given: SigmaSchedule | None, method: Method, rounds: int) -> SigmaSchedule:
        """The schedule that a run has where this one, or none, is given."""
        return (given or automatic_schedule(method)).over(rounds)

    @classmethod
    def restore(cls, path: Path | str, **arguments: Any) -> Self:
        """Go on with the run in a directory, which may be a copy, from its last checkpoint.

        Args:
            path: The run directory, or the URI of a run's folder in an object store.
            arguments: As the run was started with: models, functions and data are never read from a disk. What may
                change: workers, how often is evaluated and saved, reasons to stop, and more `rounds`.

        Returns:
            A trainer whose `fit` goes on.

        Raises:
            ConfigError: There is no run, or the arguments differ (some of that is found by `fit` only).
        """
        place = Run.of(path if isinstance(path, Run) else checks.path("path", path))
        run = Run.of(arguments.get("run_config") or place)
        run = replace(run, path=place.path, storage=place.storage or run.storage)
        directory = RunDirectory(run.path, run.storage)
        if not directory.holds_a_run():
            raise ConfigError(f"{path} holds no run to go on with: give a run directory, one with a config.yaml.")
        return cls(**{**arguments, "run_config": run, "resume": True})

    def _check_places(self, *, replaying: bool) -> None:
        """Whether what is pinned can be where it must."""
        label, of = self._pins
        places = set(of.values())
        if not places:
            return
        if replaying:
            raise ConfigError(
                "pin_to keeps rows in their places, but replay needs all of them: leave one of the two out."
            )
        if self._scaling.most < len(places):
            raise ConfigError(
                f"scaling_config has at most {self._scaling.most} workers, but pin_to names {len(places)} places, and "
                f"each needs a worker of its own: use at least {len(places)}."
            )
        if label in self._scaling.labels:
            raise ConfigError(
                f"the label {label} is in pin_to and in the label selector of scaling_config: leave it out there."
            )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all that tells how good a round's model is."""
        return self._prepared.metrics

    def _directory(self) -> RunDirectory:
        return RunDirectory(self._run.path, self._run.storage, replacing=self._overwrite)

    def fit(self) -> Result:
        """Train to the end, or to a reason to stop.

        Returns:
            The last row's metrics, the history and the run directory.

        Raises:
            ConfigError: The run directory holds a run, or what is to be resumed does not fit, or another process is at
                work there.
            NonFiniteError: Training went to NaN or infinity; the last good checkpoint stays.
            PisaError: User code raised, a disk failed, or processes died too often.
        """
        directory = self._directory()
        with directory.lock():
            self._check_directory(directory)
            return self._fit(directory)

    def _fit(self, directory: RunDirectory) -> Result:
        events = Events(directory, quiet=self._quiet)

        def hanging(message: str) -> None:
            if events.accepted:
                self._fail(directory, RayLostError(message))

        log = directory.records.add_arrivals
        with StopRequests() as stop_requests, self._places.session(log, stop_requests, hanging) as make_fleet:
            directory.requests.take_resize()  # one that an earlier run did not live to see
            try:
                return self._attempts(directory, make_fleet, stop_requests, events)
            except BaseException as error:
                if events.accepted:  # else nothing has happened
                    self._fail(directory, error, "interrupted" if isinstance(error, StoppedWaitingError) else "failed")
                if isinstance(error, OSError):
                    raise PisaError(
                        f"the run directory cannot be written: {error}; resume=True goes on from the last checkpoint."
                    ) from error
                if isinstance(error, ConfigError) and events.accepted:
                    raise PisaError(str(error)) from error  # too late for a refusal
                raise

    def _take(self, directory: RunDirectory, events: Events) -> None:
        """Have the folder be this run's, once, when a round is about to begin; a refusal before changes nothing."""
        if not events.accepted:
            take = directory.go_on if directory.has_begun() else directory.take
            take(self._config, self._prepared.partition)

    @contextmanager
    def opened(self) -> Iterator[Steps]:
        """The run at its start, in somebody else's hands.

        Raises:
            ConfigError: As `fit`.
            PisaError: As `fit`.
        """
        directory = self._directory()
        with directory.lock():
            self._check_directory(directory)
            with self._places.session(directory.records.add_arrivals) as make_fleet:
                events = Events(directory, quiet=True)
                with make_fleet(self._changes.job, events, lambda: False) as fleet:
                    progress, schedule = self._start(fleet, events), self._schedule
                    self._take(directory, events)
                    events.accept(0)
                    display = Display(schedule.rounds, quiet=True)
                    loop = Loop(
                        self._changes.job,
                        fleet,
                        schedule,
                        directory,
                        self._identity,
                        display,
                        events,
                        lambda: False,
                        lambda: None,
                        self._changes,
                        progress,
                    )
                    yield Steps(loop, schedule.rounds)

    def resize(self, workers: int) -> None:
        """Change the number of workers while `fit` runs in another thread: from the next round on, as there is room.

        Args:
            workers: How many, at least 1; also the new maximum, and where it is less than the minimum, that too.

        Raises:
            ConfigError: The number is less than 1, or the run has no workers.
        """
        workers = checks.whole()("workers", workers)
        if workers < 1:
            raise ConfigError(f"workers is {workers}, but a run can be resized to 1 or more.")
        if self._scaling.most == 0:
            raise ConfigError("a run with scaling_config 0 is in one process and cannot be resized.")
        self._resize = workers

    def remove_shard(self, shard: int) -> None:
        """Take a shard out of the problem for good while `fit` runs in another thread: from the next round on.

        Its last message leaves the sum, and it never reports again; the weights of the others keep their proportions.
        The run goes on with another problem, and a checkpoint is written at once.

        Args:
            shard: Its id.

        Raises:
            ConfigError: There is none, it is the last, or the method cannot do without it.
        """
        self._changes.ask(Asked(remove=checks.whole(least=0)("shard", shard)))

    def add_shard(self, train: Path | str) -> None:
        """Let new data join the problem while `fit` runs in another thread: from the next round on.

        They become a shard with the next id, which is never used again, and train on all their rows; alpha_i is n_i
        over the rows of the first shards, or one over their number. A checkpoint is written at once.

        Args:
            train: A Parquet file or folder, path or URI, with the columns of data.train; a resume opens it again.

        Raises:
            ConfigError: It cannot be read, or its inputs or labels are of another kind.
        """
        self._changes.ask(Asked.to_add(checks.path("train", train)))

    def _check_directory(self, directory: RunDirectory) -> None:
        """Whether the folder is free, or holds a run that these arguments can go on with."""
        if not self._resume:
            directory.check_free()
        if directory.storage is not None:
            check_storage(directory.storage)
        if self._resume and directory.has_begun():
            check_resumable(directory.config(), self._config)
            check_data(
                directory.known_data(), self._prepared.partition["data"], "resume with those data, wherever they lie."
            )
            last = checkpoint.latest(directory.checkpoints)
            if last:
                last.check_fits(self._identity)
                self._changes.again(last.progress.changes)  # before anything is started

    def _attempts(
        self,
        directory: RunDirectory,
        make_fleet: FleetFactory,
        stop_requested: Callable[[], bool],
        events: Events,
    ) -> Result:
        """Run; where states are lost beyond repair, run on from the last checkpoint, unless that happens too often."""
        stuck, reached = 0, -1
        doublings, diverged = 0, -1
        resuming = self._resume and directory.has_begun()
        if not resuming:
            for note in self._prepared.notes:
                events("warning", message=note)
        if (robust := self._prepared.job.robust) is not None:
            events("robust", message=robust.caveat(len(self._prepared.job.shards)))
        while True:
            last = directory.latest() if resuming else None
            if last and last.progress.round > diverged:
                doublings = 0
            try:
                job = self._changes.again(last.progress.changes if last else [])
                job = with_numbers(job, last.progress.start if last else {})
                self._changes.settle(job, [])
                with make_fleet(job, events, stop_requested) as fleet:
                    return self._attempt(directory, fleet, events, stop_requested, last, resuming, doublings)
            except StatesLostError as error:
                last = directory.latest()
                progress = last.progress.round if last else 0
                stuck, reached = (stuck + 1, reached) if progress <= reached else (1, progress)
                events("states_lost", message=f"{error} Going on from round {progress}.")
                if stuck == PATIENCE:
                    raise PisaError(
                        f"states were lost {stuck} times after round {reached} without a newer checkpoint: look for a "
                        "crash in the model or for too little memory; resume=True tries again."
                    ) from error
                resuming = True
            except NonFiniteError as error:
                last = directory.latest()
                progress = last.progress.round if last else 0
                doublings, diverged = (doublings + 1, diverged) if progress <= diverged else (1, progress)
                if not is_automatic(self._prepared.job.method) or doublings > DOUBLINGS:
                    raise
                where = f"round {progress}" if progress else "the start"
                reason = str(error).partition(": ")[0]
                times = f"{2**doublings} times " if doublings > 1 else "twice "
                events("backed_off", message=f"{reason}; going on from {where} at {times}the sigma")
                resuming = True

    def _attempt(
        self,
        directory: RunDirectory,
        fleet: Fleet,
        events: Events,
        stop_requested: Callable[[], bool],
        last: Checkpoint | None,
        resuming: bool,
        doublings: int,
    ) -> Result:
        """Run the loop on a fleet, from a checkpoint where there is one, with sigma doubled so many times."""
        schedule = self._schedule
        now = fleet.workers()[0].environment
        differing = check_environment(last.manifest["environment"], now, exact=self._exact) if last else []
        events.round = last.progress.round if last else 0
        progress = last.restore(fleet) if last else self._start(fleet, events)
        job = self._changes.job
        progress.sigma *= 2.0**doublings
        progress.exact = progress.exact and not differing
        display = Display(schedule.rounds, progress.round, quiet=self._quiet, penalty=job.method.duals)
        events.display = display
        self._take(directory, events)
        mended = directory.cut_back(last) if resuming else []
        events.accept(progress.round)
        if resuming:
            events("resumed", checkpoint=last.folder.name if last else None)
        for message in mended:
            events("mended", message=message)
        if differing:
            events("inexact", message=" ".join(differing))
        if last:
            display.say(f"resuming at round {progress.round}")
        elif self._resume:
            display.say(f"{directory.path} has no complete checkpoint: starting from round 0")
        first = self._prepared.job
        if unused := first.train.rows - sum(len(rows) for rows in (*first.shards, *first.held_out)):
            display.say(f"{unused} of {first.train.rows} training rows belong to no shard")
        loop = Loop(
            job,
            fleet,
            schedule,
            directory,
            self._identity,
            display,
            events,
            stop_requested,
            lambda: self._take_resize(directory),
            self._changes,
            progress,
            Watch(schedule.sigma, schedule.rounds, progress.sigma, progress.round) if self._warn else None,
            may_explode=found_sigma(progress.start) and doublings < DOUBLINGS,
            may_turn=found_sigma(progress.start) and schedule.sigma.planned,
            last_row=directory.records.last_row(),
        )
        try:
            status = loop.run()
        finally:
            display.close()
            events.display = None
        digest = fleet.export(progress.round, str(directory.model))
        metrics = self._end(
            directory,
            status,
            {
                "rounds": progress.round,
                **loop.last_row,
                **progress.best,
                "exact": progress.exact and not events.inexact,
                "weights_sha256": digest,
                "seconds": progress.seconds,
                "gradient_seconds": progress.gradient_seconds,
            },
        )
        rule, folder = schedule.keep, directory.checkpoints
        saved = checkpoint.latest(folder)
        best = checkpoint.best(folder, rule.best_by, rule.order) if rule.best_by else None
        return Result(
            status,
            metrics,
            directory.path,
            saved.place if saved else Path(folder.path),
            best.place if best else None,
        )

    def _start(self, fleet: Fleet, events: Events) -> Progress:
        """Before round 1: set what is still to be set."""
        fleet.tend()  # so that every shard is hosted
        planned = getattr(self._schedule.sigma, "rounds", None) or self._schedule.rounds
        job, found, samples = measured(fleet, self._changes.job, self._prepared.layout, planned)
        if found:
            numbers = found_numbers(self._changes.job.method, found)
            fleet.start(job)
            self._changes.settle(job, [])
            events("started", numbers=numbers, **found)
        if self._warn and "sigma" not in found and (warning := below_the_edge(fleet, job)):
            events("warning", message=warning)
        return Progress(sigma=number(job.method.sigma), start=found, sample_gradients=samples)

    def _take_resize(self, directory: RunDirectory) -> int | None:
        """The size asked for since the last time, by `resize` or `pisa-ray resize`."""
        asked, self._resize = self._resize, None
        return directory.requests.take_resize() if asked is None else asked

    def _end(self, directory: RunDirectory, status: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        metrics = {"name": self._config.get("name") or directory.path.name, "status": status, **fields}
        directory.write("result.json", metrics)
        directory.records.add_event(status, int(fields["rounds"]))
        directory.publish(results=True)
        return metrics

    def _fail(self, directory: RunDirectory, error: BaseException, status: str = "failed") -> None:
        """Record how the run ended, as far as the disk lets us."""
        kind = type(error).__name__
        message = str(error) if isinstance(error, PisaError | OSError) else kind
        with suppress(OSError, PisaError):
            last = directory.records.last_row()
            self._end(directory, status, {"error": kind, "message": message, "rounds": last.get("round", 0), **last})
