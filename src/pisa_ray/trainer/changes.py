"""Shards that join or leave the problem while a run goes on: which changes are possible, and how they change a job.

A change is a plain dict. It is in events.jsonl, and in every checkpoint since, so that a resume can make it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from pisa_ray.algorithm import memory_of
from pisa_ray.data import Source, check_alike, open_source
from pisa_ray.engine.job import Job
from pisa_ray.errors import ConfigError, PisaError
from pisa_ray.trainer.labels import label_range
from pisa_ray.trainer.manifest import Progress
from pisa_ray.trainer.prepare import Prepared, check_robust

#: Kinds of changes.
REMOVED, ADDED = "shard_removed", "shard_added"


@dataclass(frozen=True)
class Asked:
    """A request of the user: one of the first two attributes is set.

    Attributes:
        remove: The id of a shard that is to leave.
        add: The path or URI of Parquet data that are to join as a shard.
        name: The name of the request, if another process made it.
    """

    remove: int | None = None
    add: str | None = None
    name: str | None = None

    @classmethod
    def to_add(cls, train: Path | str) -> Asked:
        """Make a request for data to join; a relative path is relative to this process's folder."""
        return cls(add=train if isinstance(train, str) and "://" in train else str(Path(train).absolute()))


def present(founders: int, changes: Iterable[Mapping[str, Any]]) -> list[int]:
    """Return the ids of the shards that are part of the problem, ascending.

    Args:
        founders: The number of founders.
        changes: The changes since.
    """
    ids = set(range(founders))
    for change in changes:
        (ids.add if change["kind"] == ADDED else ids.discard)(int(change["shard"]))
    return sorted(ids)


class Changes:
    """Makes changes of a job, and keeps requests until they are saved.

    Args:
        prepared: The job that the run began with, and what is known of its model and data.
        replaying: Whether the run repeats a log.

    Attributes:
        job: The present job.
        waiting: The requests that are not done yet.
    """

    def __init__(self, prepared: Prepared, *, replaying: bool = False) -> None:
        self._prepared, self._replaying = prepared, replaying
        self.job = prepared.job
        self.waiting: list[Asked] = []
        self._lock = Lock()

    def ask(self, asked: Asked) -> None:
        """Ask for a change, from any thread.

        Raises:
            ConfigError: If the job cannot have it after all changes that wait.
        """
        with self._lock:
            job = self.job
            for one in [*self.waiting, asked]:
                job, _ = self.made(job, one, round_=0)
            self.waiting.append(asked)

    def receive(self, asked: Iterable[Asked]) -> None:
        """Take in the requests of other processes, each once, as they have names."""
        with self._lock:
            self.waiting += [one for one in asked if one not in self.waiting]

    def settle(self, job: Job, done: Iterable[Asked]) -> None:
        """Set the present job, and drop requests that are done or refused."""
        with self._lock:
            self.job = job
            for one in done:
                self.waiting.remove(one)

    def made(self, job: Job, asked: Asked, round_: int) -> tuple[Job, dict[str, Any]]:
        """Return the job after a change, and the record of the change.

        Args:
            job: The job before.
            asked: The request.
            round_: Rounds done.

        Raises:
            ConfigError: If the change cannot be made.
        """
        self._check_kind(job)
        if asked.remove is not None:
            self._check_leaves(job, asked.remove)
            changed, shard, more = job.without(asked.remove), asked.remove, {}
        else:
            assert asked.add is not None  # noqa: S101  (for the type checker)
            source = self._opened(job, asked.add)
            changed, shard = self._with(job, source, round_), len(job.shards)
            more = {"train": asked.add, "fingerprint": source.fingerprint()}
        check_robust(changed)
        kind = REMOVED if asked.remove is not None else ADDED
        record = {"round": round_, "kind": kind, "shard": shard, "rows": len(changed.shards[shard]), **more}
        return changed, record | ({"name": asked.name} if asked.name is not None else {})

    def all_made(
        self, job: Job, waiting: Iterable[Asked], progress: Progress
    ) -> tuple[Job, list[dict[str, Any]], list[str]]:
        """Make all changes that wait; return the job after them, their records, and a sentence for each refusal.

        Args:
            job: The job before.
            waiting: The requests; those that are saved already, as the run ended before it dropped them, are left out.
            progress: The progress of the run.
        """
        known = {change.get("name") for change in progress.changes} - {None}
        changes: list[dict[str, Any]] = []
        refused: list[str] = []
        for asked in waiting:
            if asked.name in known:
                continue
            try:
                job, change = self.made(job, asked, progress.round)
            except ConfigError as error:
                refused.append(str(error))
            else:
                changes.append(change)
        return job, changes, refused

    def after(self, changes: Iterable[Mapping[str, Any]]) -> Job:
        """Return the job that a run has after some changes.

        Raises:
            ConfigError: If data that have joined are missing now, or have changed.
        """
        job = self._prepared.job
        for change in changes:
            here = job.present if change["kind"] == REMOVED else [len(job.shards)]
            if change["shard"] not in here:
                raise ConfigError(
                    f"the record of {change['kind']} {change['shard']} is damaged, or another run's: put a copy back."
                )
            if change["kind"] == REMOVED:
                job = job.without(int(change["shard"]))
                continue
            source = self._opened(job, change["train"])
            if source.fingerprint() != change["fingerprint"]:
                raise ConfigError(
                    f"{change['train']} has changed since it joined the run as shard {change['shard']}: put the old "
                    "data back, or resume from an older checkpoint."
                )
            job = self._with(job, source, int(change["round"]))
        return job

    def _with(self, job: Job, source: Source, round_: int) -> Job:
        """Add a shard, whose weight is its rows over those of all founders, or that of one founder."""
        rows = sum(len(job.shards[i]) for i in range(job.founders))
        alpha = 1 / job.founders if self._prepared.shard_weights == "uniform" else source.rows / rows
        return job.together_with(source, alpha, round_ + 1)

    # Refusals

    def _check_kind(self, job: Job) -> None:
        if self._replaying:
            raise ConfigError("the run repeats a log (Asynchronous.replay): shards cannot join or leave it.")
        made_of = memory_of(job.method)
        if made_of != "steps" and len(job.method.initial_memory(self._prepared.layout)):
            name = type(job.method).__name__
            known = (
                "something of those that there were at first: use"
                if made_of
                else f"something, and {name} does not say of what: set its memory_of, if that is 'steps', or use"
            )
            raise ConfigError(
                f"shards cannot join or leave a run of {name}, whose consensus remembers {known} another algorithm, "
                "such as SISAD."
            )
        if job.clips:
            raise ConfigError(
                "shards cannot join or leave a run with robust: clip, whose messages have a place for each of the "
                "first shards: use TrimmedMean or Median, or leave robust out."
            )

    def _check_leaves(self, job: Job, shard: int) -> None:
        if shard in job.removed:
            raise ConfigError(f"shard {shard} has left already: name one of {_listed(job)}.")
        if shard not in job.present:
            raise ConfigError(f"there is no shard {shard} that could leave: name one of {_listed(job)}.")
        if len(job.present) == 1:
            raise ConfigError(f"shard {shard} is the only one left, and a run needs one: let another one join first.")
        if isinstance(job.participation, tuple):
            rest = job.without(shard)
            for k, some in enumerate(job.participation):
                if not set(some) - rest.removed:
                    raise ConfigError(
                        f"shard {shard} cannot leave: participation[{k}] names no other shard that is left, so nobody "
                        "would report in its rounds."
                    )

    def _opened(self, job: Job, train: str) -> Source:
        """Open and check the data that are to join."""
        if isinstance(job.participation, tuple):
            raise ConfigError(
                "participation lists the shards of each round and cannot name one that joins: use a share, such as 0.5."
            )
        if job.distortions:
            raise ConfigError(
                "the partition distorts each shard in its own way, and has no distortion for one that joins: leave "
                "the distortions out."
            )
        columns, label = self._prepared.columns
        if columns is None or label is None:
            raise ConfigError(
                "data.train is not a table, so no columns are known for data that join: train on Parquet, "
                "with data.input and data.label."
            )
        try:
            integers = job.preprocess.dtype == torch.int64
            place = Path(train) if "://" not in train else train
            source = open_source(place, input=columns, label=label, integers=integers)
            source.check(train, inputs=job.preprocess.transform is None)
            self._check_fits(job.train, source, train)
        except PisaError:
            raise
        except Exception as error:  # the libraries below may raise anything
            raise ConfigError(f"{train} cannot be read ({error}): check its address and access rights.") from error
        return source

    def _check_fits(self, train: Source, source: Source, name: str) -> None:
        check_alike(train, source, name)
        found, ours = label_range(source), label_range(train)
        if found is None or ours is None:
            return
        # Where the number of classes is unknown, so is what the loss would make of other labels.
        classes = self._prepared.classes
        least, most = (ours.least, ours.most) if classes is None else (0, classes - 1)
        if found.least < least or found.most > most:
            raise ConfigError(
                f"{name} has labels from {found.least} to {found.most}, but the model knows those from {least} to "
                f"{most}: leave the other rows out."
            )


def _listed(job: Job) -> str:
    ids = [str(i) for i in job.present]
    return ", ".join(ids[:20]) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "")
