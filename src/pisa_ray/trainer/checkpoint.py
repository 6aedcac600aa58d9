"""Checkpoints: each process writes its safetensors, and the driver last a JSON manifest that makes it complete."""

from __future__ import annotations

import hashlib
import json
import math
import re
import uuid
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pisa_ray.engine.files import Folder
from pisa_ray.engine.fleet import Fleet
from pisa_ray.engine.json_text import is_count
from pisa_ray.engine.numerics import differences
from pisa_ray.errors import ConfigError, PisaError
from pisa_ray.fields import Count
from pisa_ray.options import Options
from pisa_ray.trainer.changes import present
from pisa_ray.trainer.manifest import FORMAT, Progress, fault
from pisa_ray.trainer.resume import differing

MANIFEST = "manifest.json"
_OLDER = "remove its folder to resume from an older one."
_NAME = re.compile(r"round-(\d{6,})-[0-9a-f]{8}")


@dataclass(frozen=True)
class Keep(Options):
    """Which checkpoints stay: the newest, or the best by a metric together with the newest, so that a run can resume.

    Attributes:
        count: The number of checkpoints that stay; None: all.
        best_by: The name of a metric in metrics.jsonl; None: the newest stay.
        order: Whether the best value is the largest, "max", or the smallest, "min".
    """

    count: Count | None = 2
    best_by: str | None = None
    order: Literal["max", "min"] = "max"

    def score(self, metrics: Mapping[str, Any]) -> float:
        """Return how good a checkpoint is; one without the metric is worse than any."""
        value = metrics.get(self.best_by) if self.best_by is not None else None
        if not isinstance(value, int | float) or not math.isfinite(value):
            return -math.inf
        return value if self.order == "max" else -value

    def chosen(self, scores: Sequence[float]) -> set[int]:
        """Choose the checkpoints that stay.

        Args:
            scores: The score of each, from the oldest to the newest; not read if the newest stay.

        Returns:
            Their positions.

        >>> sorted(Keep(2).chosen([1, 5, 3, 2]))
        [2, 3]
        >>> sorted(Keep(2, "validation_accuracy").chosen([1, 5, 3, 2]))
        [1, 2, 3]
        """
        order = list(range(len(scores)))
        if self.count is None:
            return set(order)
        if self.best_by is not None:  # of equals the newer stays
            order.sort(key=lambda i: (scores[i], i))
        return {*order[-self.count :], *range(len(scores))[-1:]}


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: Folder
    manifest: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """The folder, if it is on a local disk."""
        return Path(self.folder.path)

    @property
    def place(self) -> Path | str:
        """The folder: a path, or a URI."""
        return self.path if self.folder.is_local else str(self.folder)

    @property
    def progress(self) -> Progress:
        """The progress of the run when it was made."""
        return Progress(**deepcopy(self.manifest["progress"]))

    def restore(self, fleet: Fleet) -> Progress:
        """Load the checkpoint into a fleet of any size, and return its progress.

        Raises:
            ConfigError: If a file is damaged, or not what the job needs.
        """
        for entry in _entries(self.manifest["files"]):
            self.folder.check(entry)
        self._check_finite()
        fleet.restore(self.folder, self.manifest["files"], self.progress.round)
        return self.progress

    def published(self) -> np.ndarray:
        """Return w, the floating buffers and the method's memory, [p + b + e]."""
        entry = self.manifest["files"]["consensus"]
        vector: np.ndarray = self.folder.read_tensors(entry, ["published"])["published"].numpy()
        return vector

    def _check_finite(self) -> None:
        """Refuse a w that is not finite, which no run saves; entries after w need not be numbers."""
        entry = self.manifest["files"]["consensus"]
        size = sum(math.prod(shape) for _, shape in self.manifest["identity"].get("parameters") or [])
        w = self.published()[:size]
        if not math.isfinite(float(w.sum())):
            raise ConfigError(f"{self.folder}/{entry['file']} holds a w that is not finite: {_OLDER}")

    def check_fits(self, identity: Mapping[str, Any]) -> None:
        """Refuse other data, another model or other settings than the checkpoint's, before anything is started.

        Raises:
            ConfigError: If one differs; it says which.
        """
        mine, theirs = _plain(identity), self.manifest["identity"]
        remedy = "resume with what the run was started with."
        if theirs.get("data_sha256") != mine.get("data_sha256"):
            raise ConfigError(f"{self.folder} was made with other data or another partition: {remedy}")
        if theirs.get("parameters") != mine.get("parameters"):
            here, there = dict(mine["parameters"]), dict(theirs.get("parameters") or [])
            name = next((n for n in [*here, *there] if here.get(n) != there.get(n)), "the order")
            raise ConfigError(
                f"{self.folder} was made with other model parameters ({name} is {there.get(name)}, not "
                f"{here.get(name)}): {remedy}"
            )
        moved, moves = theirs.get("rules") or {}, mine.get("rules") or {}
        if path := next((path for path in [*moves, *moved] if moves.get(path) != moved.get(path)), None):
            raise ConfigError(
                f"{self.folder} was made with a group {path.rstrip('.')} of the parameters "
                f"{', '.join(moved.get(path, [])) or 'none'}, not {', '.join(moves.get(path, [])) or 'none'}: {remedy}"
            )
        before, now = theirs.get("settings") or {}, mine.get("settings") or {}
        if (key := differing(before, now)) is not None:
            raise ConfigError(
                f"{self.folder} was made with {key} = {before.get(key)!r}, not {now.get(key)!r}: {remedy}"
            )
        saved = sorted(i for entry in self.manifest["files"]["shards"] for i in entry["shards"])
        if saved != sorted(map(str, present(mine.get("shards", len(saved)), self.progress.changes))):
            raise ConfigError(f"{self.folder} does not hold every shard's state once: {_OLDER}")


@dataclass(frozen=True)
class Draft:
    """A checkpoint that is being written, in its own folder; it is no checkpoint until it is finished.

    Attributes:
        folder: The folder of its files.
        manifest: The manifest without the entries of the files.
        keep: Which checkpoints stay once it is complete.
    """

    folder: Folder
    manifest: Mapping[str, Any]
    keep: Keep

    def finish(self, files: Mapping[str, Any]) -> Checkpoint:
        """Complete the checkpoint, once all files are written, and remove those that need not stay.

        Args:
            files: The entries that Fleet.save returned.

        Raises:
            PisaError: If it cannot be written, or the driver cannot see a file.
        """
        for entry in _entries(files):
            if self.folder.size(entry["file"]) != entry["bytes"]:
                raise PisaError(
                    f"{self.folder}/{entry['file']} was written by a worker, but the driver cannot see it: use "
                    "a folder that all machines share, or an object store."
                )
        raw = _render(_plain({**self.manifest, "files": files}))
        self.folder.write(MANIFEST, raw)
        _prune(self.folder.above, self.folder.name, self.keep)
        return Checkpoint(self.folder, json.loads(raw))


def begin(
    folder: Folder | Path,
    progress: Progress,
    identity: Mapping[str, Any],
    environment: Mapping[str, str | int],
    metrics: Mapping[str, Any] | None = None,
    keep: Keep | None = None,
) -> Draft:
    """Begin a checkpoint: make its folder and note the present progress, as training goes on meanwhile.

    Args:
        folder: The folder of all checkpoints of the run.
        progress: The progress of the run.
        identity: What a run that resumes from it must have in common with this one.
        environment: Whatever can change the last bits of a gradient.
        metrics: The last row.
        keep: Which checkpoints stay; None: the two newest.
    """
    keep, row = keep or Keep(), metrics or {}
    numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and math.isfinite(v)}
    if keep.best_by is not None and keep.best_by not in numbers:
        warnings.warn(
            f"the checkpoint of round {progress.round} has no {keep.best_by} to be kept by: it counts as the worst.",
            stacklevel=2,
        )
    into = Folder.of(folder) / f"round-{progress.round:06d}-{uuid.uuid4().hex[:8]}"
    into.create()
    manifest = {
        "format": FORMAT,
        "progress": asdict(progress),
        "identity": identity,
        "environment": environment,
        "metrics": numbers,
    }
    return Draft(into, _plain(manifest), keep)


def latest(folder: Folder | Path) -> Checkpoint | None:
    """Read the newest complete checkpoint of a run, if there is one.

    Raises:
        ConfigError: If it is damaged; an older one is never taken in its place unasked.
    """
    found = complete_in(Folder.of(folder))
    return _read(found[-1]) if found else None


def best(folder: Folder | Path, metric: str, order: Literal["max", "min"] = "max") -> Checkpoint | None:
    """Read the best complete checkpoint, the newer of equals, if one has the metric."""
    found = complete_in(Folder.of(folder))
    scores = _scores(found, Keep(None, metric, order))
    score, position = max(((score, i) for i, score in enumerate(scores)), default=(-math.inf, 0))
    return _read(found[position]) if score > -math.inf else None


def complete_in(folder: Folder) -> list[Folder]:
    """Return the folders of complete checkpoints, oldest first."""
    found = [(int(match[1]), name) for name in folder.folders() if (match := _NAME.fullmatch(name))]
    return [folder / name for _, name in sorted(found) if (folder / name).has(MANIFEST)]


def clear_unfinished(folder: Folder, *, and_complete: bool = False) -> None:
    """Remove unfinished checkpoints, or all; to be called while none is being written."""
    for name in folder.folders():
        if _NAME.fullmatch(name) and (and_complete or not (folder / name).has(MANIFEST)):
            (folder / name).delete()


def check_environment(saved: Mapping[str, Any], now: Mapping[str, Any], *, exact: bool = True) -> list[str]:
    """Compare environments, which can change the last bits of a gradient.

    Args:
        saved: The environment in which a checkpoint was made.
        now: The present environment.
        exact: Whether a difference is refused.

    Returns:
        A sentence per difference.

    Raises:
        ConfigError: If they differ and `exact` is set.
    """
    found = differences(saved, now)
    told = [
        f"the run was computed with {key} {before}, and goes on with {after}" for key, (before, after) in found.items()
    ]
    if exact and told:
        raise ConfigError(
            f"{told[0]}, which may change its last bits: use the same as before, or set exact=False to go on anyway."
        )
    return [f"{text}: the result may differ in its last bits." for text in told]


def _entries(files: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [files["consensus"], *files["shards"]]


def _scores(folders: Sequence[Folder], keep: Keep) -> list[float]:
    """Return the scores of checkpoints; one that cannot be read counts as the worst."""
    scores = []
    for folder in folders:
        try:
            scores.append(keep.score(_read(folder).manifest["metrics"]))
        except PisaError:
            scores.append(-math.inf)
    return scores


def _prune(folder: Folder, newest: str, keep: Keep) -> None:
    """Remove checkpoints beyond `keep`, older attempts at this round, and unfinished checkpoints."""
    round_ = _round(newest)
    names = [name for name in folder.folders() if _NAME.fullmatch(name) and _round(name) <= round_ and name != newest]
    complete = [name for name in names if (folder / name).has(MANIFEST)]
    older = [name for name in sorted(complete, key=_round) if _round(name) < round_]
    candidates = [folder / name for name in [*older, newest]]
    stays = keep.chosen(_scores(candidates, keep) if keep.best_by else [0.0] * len(candidates))
    kept = {candidates[i].name for i in stays}
    for name in names:
        if name not in kept:
            if name in complete:  # the manifest goes first, so that what is left does not count as a checkpoint
                (folder / name).remove(MANIFEST)
            (folder / name).delete()


def _round(name: str) -> int:
    return int(name.split("-")[1])


def _read(folder: Folder) -> Checkpoint:
    """Read and check the manifest of a checkpoint."""
    raw = folder.read(MANIFEST)
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{folder}/{MANIFEST} is damaged: it is not JSON; {_OLDER}") from error
    if not isinstance(manifest, dict) or not is_count(manifest.get("format")):
        raise ConfigError(f"{folder}/{MANIFEST} is damaged: it is not a manifest; {_OLDER}")
    if manifest.get("format") != FORMAT:
        raise ConfigError(
            f"{folder} has format {manifest.get('format')!r}, but this version reads format {FORMAT}: use the version "
            "that wrote it."
        )
    if _render(manifest) != raw:
        raise ConfigError(f"{folder}/{MANIFEST} has been altered: {_OLDER}")
    if (wrong := fault(raw)) is not None:
        raise ConfigError(f"{folder}/{MANIFEST} is damaged: it is not a manifest ({wrong}); {_OLDER}")
    if manifest["progress"]["round"] != _round(folder.name):
        raise ConfigError(f"{folder}/{MANIFEST} is damaged: it is of another round than its folder; {_OLDER}")
    return Checkpoint(folder, manifest)


def _render(manifest: Mapping[str, Any]) -> bytes:
    """Return the bytes of a manifest, with a hash of the rest of it; no other bytes are accepted."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**body, "sha256": digest}, indent=1, sort_keys=True) + "\n").encode()


def _plain(value: Any) -> Any:
    """Return a copy as JSON reads it back."""
    return json.loads(json.dumps(value, default=str))
