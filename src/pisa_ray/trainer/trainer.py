"""PisaTrainer: the round loop with the vocabulary of Ray Train."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any, ClassVar, Self

from pisa_ray import checks
from pisa_ray.errors import ConfigError
from pisa_ray.fields import Key
from pisa_ray.trainer.attempts import Attempts
from pisa_ray.trainer.changes import Asked, Changes
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.data import Opened
from pisa_ray.trainer.plan import Plan, plan
from pisa_ray.trainer.result import Result
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.settings import Run
from pisa_ray.trainer.steps import Steps


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PisaTrainer(Config):
    """Trains a model with PISA, SISA, NSISA or SISA-D over shards of data that Ray workers host.

    The result is a function of the arguments, the data and the seed; `scaling_config` changes the time it takes only.
    The arguments are the options of a run, in the groups of `pisa_ray.trainer.config.Config`, and how it is begun.

    Attributes:
        resume: Go on from the last checkpoint of the run of that name; without one, start from round 0 and say so.
        overwrite: Replace the run of that name, if there is one and nobody is at work on it, when round 1 begins.
        progress: Whether progress is shown on standard error.
        warn: Whether it is told when a given sigma is below the edge of stability at the initial model, which takes a
            few gradients more that are not counted, and when sigma grows so fast that w freezes.
        opened: The data, where they have been opened already.

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

    renamed: ClassVar[Mapping[str, str]] = {
        "evaluate": "metrics",
        "replay": "asynchronous=Asynchronous(replay=...)",
        "config": "run_config",
        **dict.fromkeys(("workers", "num_workers"), "scaling_config"),
        **dict.fromkeys(("out", "name", "path"), "run_config"),
        "shards": "partition",
        "stop": "stop_seconds or stop_test_accuracy",
    }

    resume: Annotated[bool, Key("")] = False
    overwrite: Annotated[bool, Key("")] = False
    progress: Annotated[bool, Key("")] = True
    warn: Annotated[bool, Key("")] = False
    opened: Annotated[Opened | None, Key("")] = None

    __eq__, __hash__ = object.__eq__, object.__hash__  # two trainers differ even if their options are equal

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and self.overwrite:
            raise ConfigError("resume=True goes on with a run, but overwrite=True replaces it: use one of the two.")
        object.__setattr__(self, "run_config", self.run.placed())
        if not self.resume:
            self._directory().check_free()  # before data are read
        _ = self._plan  # errors are raised now, instead of by `fit`

    def __repr__(self) -> str:
        return f"PisaTrainer({str(self.run.folder)!r}, rounds={self.rounds}, algorithm={self._plan.config.algorithm})"

    @cached_property
    def _plan(self) -> Plan:
        # A default schedule stays as it was planned when the run began, even if the run is prolonged.
        known = self.resume and self.sigma_schedule is None
        return plan(Config(**self.arguments()), self.opened, self._directory().planned_rounds() if known else None)

    @cached_property
    def _changes(self) -> Changes:
        return Changes(self._plan.prepared, replaying=self._plan.places.replay is not None)

    @cached_property
    def _sizes(self) -> SimpleQueue[int]:
        """The numbers of workers that `resize` was given and the run has not read."""
        return SimpleQueue()

    @classmethod
    def restore(cls, path: Path | str, **arguments: Any) -> Self:
        """Return a trainer that resumes the run in a directory, which may be a copy, from its last checkpoint.

        Args:
            path: The run directory, or the URI of a run's folder in an object store.
            arguments: The arguments that the run was started with, as models, functions and data are never read from a
                disk. These may change: workers, intervals of evaluations and checkpoints, reasons to stop, and more
                `rounds`.

        Returns:
            A trainer whose `fit` resumes the run.

        Raises:
            ConfigError: If there is no run, or the arguments differ (some differences are found by `fit` only).
        """
        place = Run.of(path if isinstance(path, Run) else checks.path("path", path))
        run = Run.of(arguments.get("run_config") or place)
        run = replace(run, path=place.placed().path, storage=place.storage or run.placed().storage)
        directory = RunDirectory(run.folder, run.storage)
        if not directory.holds_a_run():
            raise ConfigError(f"{path} holds no run to go on with: give a run directory, one with a config.yaml.")
        return cls(**{**arguments, "run_config": run, "resume": True})

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of all metrics of a round's model."""
        return self._plan.prepared.metrics

    def _directory(self) -> RunDirectory:
        return RunDirectory(self.run.folder, self.run.storage, replacing=self.overwrite)

    def _attempts(self, directory: RunDirectory) -> Attempts:
        return Attempts(
            self._plan,
            directory,
            self._changes,
            self._sizes,
            resume=self.resume,
            quiet=not self.progress,
            warn=self.warn,
        )

    def fit(self) -> Result:
        """Train to the end, or to a reason to stop.

        Returns:
            The last row's metrics, the history and the run directory.

        Raises:
            ConfigError: If the run directory holds a run, or the run to be resumed does not fit, or another process is
                at work there.
            NonFiniteError: If training went to NaN or infinity; the last good checkpoint stays.
            PisaError: If user code raised, a disk failed, or processes died too often.
        """
        directory = self._directory()
        with directory.lock():
            return self._attempts(directory).run()

    @contextmanager
    def steps(self) -> Iterator[Steps]:
        """Start the run, and yield it for the caller to advance.

        Raises:
            ConfigError: If `fit` would raise it.
            PisaError: If `fit` would raise it.
        """
        directory = self._directory()
        with directory.lock(), self._attempts(directory).steps() as steps:
            yield steps

    def resize(self, workers: int) -> None:
        """Change the number of workers while `fit` runs in another thread: from the next round on, as there is room.

        Args:
            workers: The number of workers, at least 1; it becomes the maximum, and the minimum if that is larger.

        Raises:
            ConfigError: If the number is less than 1, or the run has no workers.
        """
        workers = checks.whole()("workers", workers)
        if workers < 1:
            raise ConfigError(f"workers is {workers}, but a run can be resized to 1 or more.")
        if self.scaling.most == 0:
            raise ConfigError("a run with scaling_config 0 is in one process and cannot be resized.")
        self._sizes.put(workers)

    def remove_shard(self, shard: int) -> None:
        """Remove a shard from the problem for good while `fit` runs in another thread: from the next round on.

        Its last message leaves the sum, and it never reports again; the weights of the others keep their proportions.
        The run goes on with another problem, and a checkpoint is written at once.

        Args:
            shard: The id of the shard.

        Raises:
            ConfigError: If there is no such shard, it is the last one, or the method does not allow it.
        """
        self._changes.ask(Asked(remove=checks.whole(least=0)("shard", shard)))

    def add_shard(self, train: Path | str) -> None:
        """Let new data join the problem while `fit` runs in another thread: from the next round on.

        They become a shard with the next id, which is never used again, and train on all their rows; alpha_i is n_i
        over the rows of the first shards, or one over their number. A checkpoint is written at once.

        Args:
            train: A Parquet file or folder, path or URI, with the columns of data.train; a resume opens it again.

        Raises:
            ConfigError: If they cannot be read, or their inputs or labels do not fit those of the run.
        """
        self._changes.ask(Asked.to_add(checks.path("train", train)))


def _with_groups(text: str) -> str:
    """Return a docstring with the attributes of the groups of options, for help()."""
    said = [inspect.cleandoc(group.__doc__ or "").partition("Attributes:\n")[2] for group in reversed(Config.__mro__)]
    head, attributes, rest = text.partition("    Attributes:\n")
    return head + attributes + "".join(textwrap.indent(one, "    ") + "\n" for one in said if one) + rest


PisaTrainer.__doc__ = _with_groups(PisaTrainer.__doc__ or "")
