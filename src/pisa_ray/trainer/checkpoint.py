"""Complete checkpoints: safetensors by their owners, a JSON manifest last. A folder without one is no checkpoint."""

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
from pisa_ray.trainer.resume import in_order

MANIFEST = "manifest.json"
_OLDER = "remove its folder to resume from an older one."
_NAME = re.compile(r"round-(\d{6,})-[0-9a-f]{8}")


@dataclass(frozen=True)
class Keep(Options):
    """Which checkpoints stay: the newest, or the best by a metric and the newest, from which a run is resumed.

    Attributes:
        count: How many; None: all.
        best_by: A metric's name in metrics.jsonl; None: the newest stay.
        order: Whether the best value is the largest, "max", or the smallest, "min".
    """

    count: Count | None = 2
    best_by: str | None = None
    order: Literal["max", "min"] = "max"

    def score(self, metrics: Mapping[str, Any]) -> float:
        """How good a checkpoint is; one without the metric is worse than any."""
        value = metrics.get(self.best_by) if self.best_by is not None else None
        if not isinstance(value, int | float) or not math.isfinite(value):
            return -math.inf
        return value if self.order == "max" else -value

    def chosen(self, scores: Sequence[float]) -> set[int]:
        """Which of some checkpoints stay.

        Args:
            scores: Of each, from the oldest to the newest; not looked at where the newest stay.

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
        if self.best_by is not None:  # of equals the newer
            order.sort(key=lambda i: (scores[i], i))
        return {*order[-self.count :], *range(len(scores))[-1:]}


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: Folder
    manifest: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """Its folder, where that is on a local disk."""
        return Path(self.folder.path)

    @property
    def place(self) -> Path | str:
        """Its folder: a path, or a URI."""
        return self.path if self.folder.is_local else str(self.folder)

    @property
    def progress(self) -> Progress:
        """How far the run was."""
        return Progress(**deepcopy(self.manifest["progress"]))

    def restore(self, fleet: Fleet) -> Progress:
        """Load it into a fleet of any size.

        Raises:
            ConfigError: A file is damaged, or not what the job needs.
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
        """A w that is not finite was never saved by a run; what follows it may be bits of other things."""
        entry = self.manifest["files"]["consensus"]
        size = sum(math.prod(shape) for _, shape in self.manifest["identity"].get("parameters") or [])
        w = self.published()[:size]
        if not math.isfinite(float(w.sum())):
            raise ConfigError(f"{self.folder}/{entry['file']} holds a w that is not finite: {_OLDER}")

    def check_fits(self, identity: Mapping[str, Any]) -> None:
        """Refuse other data, another model or other settings than the checkpoint's, before anything is started.

        Raises:
            ConfigError: Says which differs.
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
        for key in in_order({*before, *now}):
            if before.get(key) != now.get(key):
                raise ConfigError(
                    f"{self.folder} was made with {key} = {before.get(key)!r}, not {now.get(key)!r}: {remedy}"
                )
        saved = sorted(i for entry in self.manifest["files"]["shards"] for i in entry["shards"])
        if saved != sorted(map(str, present(mine.get("shards", len(saved)), self.progress.changes))):
            raise ConfigError(f"{self.folder} does not hold every shard's state once: {_OLDER}")


@dataclass(frozen=True)
class Draft:
    """A checkpoint that is being written, in a folder of its own; what fails on the way leaves no checkpoint.

    Attributes:
        folder: Where the states go.
        manifest: All but the files' entries.
        keep: Which checkpoints stay once it is complete.
    """

    folder: Folder
    manifest: Mapping[str, Any]
    keep: Keep

    def finish(self, files: Mapping[str, Any]) -> Checkpoint:
        """Make it a checkpoint, once all files are written, and remove those that need not stay.

        Args:
            files: What Fleet.save returned.

        Raises:
            PisaError: It cannot be written, or a file is not to be seen from here.
        """
        for entry in _entries(files):
            if self.folder.size(entry["file"]) != entry["bytes"]:
                raise PisaError(
                    f"{self.folder}/{entry['file']} was written by a worker, but is not to be seen by the driver: use "
                    "a folder that all machines share, or an object store."
                )
        raw = _render(_plain({**self.manifest, "files": files}))
        self.folder.write(MANIFEST, raw)
        _prune(self._parent, self.folder.name, self.keep)
        return Checkpoint(self.folder, json.loads(raw))

    def abandon(self) -> None:
        """Remove what has been written."""
        self.folder.delete()

    @property
    def _parent(self) -> Folder:
        return Folder(self.folder.path.rpartition("/")[0], self.folder.filesystem)


def begin(
    folder: Folder | Path,
    progress: Progress,
    identity: Mapping[str, Any],
    environment: Mapping[str, str | int],
    metrics: Mapping[str, Any] | None = None,
    keep: Keep | None = None,
) -> Draft:
    """Begin a checkpoint: make its folder and note how far the run is now, whatever goes on meanwhile.

    Args:
        folder: Of all checkpoints of the run.
        progress: How far the run is.
        identity: What a run that goes on from it must have in common with this one.
        environment: What can change the last bits of a gradient.
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
    """The newest complete checkpoint of a run, or None.

    Raises:
        ConfigError: It is damaged; an older one is not taken in its place without being asked for.
    """
    complete = _complete(Folder.of(folder))
    return _read(complete[-1]) if complete else None


def best(folder: Folder | Path, metric: str, order: Literal["max", "min"] = "max") -> Checkpoint | None:
    """The best complete checkpoint of those that stayed, the newer of equals; None where none has the metric."""
    complete = _complete(Folder.of(folder))
    scores = _scores(complete, Keep(None, metric, order))
    score, position = max(((score, i) for i, score in enumerate(scores)), default=(-math.inf, 0))
    return _read(complete[position]) if score > -math.inf else None


def any_complete(folder: Folder) -> bool:
    """Whether there is a complete checkpoint; it may be damaged."""
    return bool(_complete(folder))


def clear_unfinished(folder: Folder, *, and_complete: bool = False) -> None:
    """Remove what was never finished, or all checkpoints; to be called while nobody saves."""
    for name in folder.folders():
        if _NAME.fullmatch(name) and (and_complete or not (folder / name).has(MANIFEST)):
            (folder / name).delete()


def check_environment(saved: Mapping[str, Any], now: Mapping[str, Any], *, exact: bool = True) -> list[str]:
    """Compare what can change the last bits of a gradient.

    Args:
        saved: As it was when a checkpoint was made.
        now: As it is.
        exact: Whether a difference is refused.

    Returns:
        A sentence per difference.

    Raises:
        ConfigError: The first difference, where `exact`.
    """
    found = differences(saved, now)
    told = [
        f"the run was computed with {key} {before}, and goes on with {after}" for key, (before, after) in found.items()
    ]
    if exact and told:
        raise ConfigError(
            f"{told[0]}, which may change its last bits: use the same as before, or set exact=False to go on all the "
            "same."
        )
    return [f"{text}: the result may differ in its last bits." for text in told]


def _entries(files: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [files["consensus"], *files["shards"]]


def _complete(folder: Folder) -> list[Folder]:
    """The folders of complete checkpoints, oldest first."""
    found = [(int(match[1]), name) for name in folder.folders() if (match := _NAME.fullmatch(name))]
    return [folder / name for _, name in sorted(found) if (folder / name).has(MANIFEST)]


def _scores(folders: Sequence[Folder], keep: Keep) -> list[float]:
    """What their metrics say; those that cannot be read count as the worst."""
    scores = []
    for folder in folders:
        try:
            scores.append(keep.score(_read(folder).manifest["metrics"]))
        except PisaError:
            scores.append(-math.inf)
    return scores


def _prune(folder: Folder, newest: str, keep: Keep) -> None:
    """Remove what need not stay: checkpoints beyond `keep`, older attempts at this round, and unfinished ones."""
    round_ = _round(newest)
    names = [name for name in folder.folders() if _NAME.fullmatch(name) and _round(name) <= round_ and name != newest]
    complete = [name for name in names if (folder / name).has(MANIFEST)]
    older = [name for name in sorted(complete, key=_round) if _round(name) < round_]
    candidates = [folder / name for name in [*older, newest]]
    stays = keep.chosen(_scores(candidates, keep) if keep.best_by else [0.0] * len(candidates))
    kept = {candidates[i].name for i in stays}
    for name in names:
        if name not in kept:
            if name in complete:  # first, so that it is no checkpoint any more when its files begin to go
                (folder / name).remove(MANIFEST)
            (folder / name).delete()


def _round(name: str) -> int:
    return int(name.split("-")[1])


def _read(folder: Folder) -> Checkpoint:
    """A checkpoint's manifest, if it is whole and as it was written."""
    raw = folder.read(MANIFEST)
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{folder}/{MANIFEST} is damaged: it is not JSON; {_OLDER}") from error
    if not isinstance(manifest, dict) or not is_count(manifest.get("format")):
        raise ConfigError(f"{folder}/{MANIFEST} is damaged: it is no manifest; {_OLDER}")
    if manifest.get("format") != FORMAT:
        raise ConfigError(
            f"{folder} has format {manifest.get('format')!r}, but this version reads format {FORMAT}: use the version "
            "that wrote it."
        )
    if _render(manifest) != raw:
        raise ConfigError(f"{folder}/{MANIFEST} has been altered: {_OLDER}")
    if (wrong := fault(raw)) is not None:
        raise ConfigError(f"{folder}/{MANIFEST} is damaged: it is no manifest ({wrong}); {_OLDER}")
    if manifest["progress"]["round"] != _round(folder.name):
        raise ConfigError(f"{folder}/{MANIFEST} is damaged: it is of another round than its folder; {_OLDER}")
    return Checkpoint(folder, manifest)


def _render(manifest: Mapping[str, Any]) -> bytes:
    """The one way in which a manifest is written, with a hash of the rest of it."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**body, "sha256": digest}, indent=1, sort_keys=True) + "\n").encode()


def _plain(value: Any) -> Any:
    """As JSON gives it back; a copy."""
    return json.loads(json.dumps(value, default=str))
