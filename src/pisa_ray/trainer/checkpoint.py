"""Complete checkpoints: safetensors by their owners, a JSON manifest last; a folder either is one or is not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pisa_ray.engine.fleet import Fleet
from pisa_ray.errors import ConfigError

FORMAT = 1


@dataclass
class Progress:
    """How far a run is: what the driver must know to go on, saved in each checkpoint.

    Attributes:
        round: Rounds done.
        sigma: Penalty of the last round (sigma^0 before the first).
        sample_gradients: Sample gradients computed so far, over all shards.
        bytes_sent: Bytes of messages that workers sent to the consensus so far.
        seconds: Wall time of training so far.
        gradient_seconds: Time spent in gradients so far, summed over workers.
        best: Best value so far of every metric.
    """

    round: int = 0
    sigma: float = 0.0
    sample_gradients: int = 0
    bytes_sent: int = 0
    seconds: float = 0.0
    gradient_seconds: float = 0.0
    best: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def progress(self) -> Progress:
        """How far the run was."""
        return Progress(**self.manifest["progress"])

    def restore(self, fleet: Fleet) -> Progress:
        """Load it into a fleet of any size.

        Raises:
            ConfigError: A file is damaged.
        """
        saved = self.manifest["files"]
        for entry in [saved["consensus"], *saved["shards"]]:
            self._check(entry)
        fleet.restore(str(self.path), saved, self.progress.round)
        return self.progress

    def check_fits(self, identity: Mapping[str, Any]) -> None:
        """Refuse other data or another model than the checkpoint's, before anything is started.

        Raises:
            ConfigError: Says which differs.
        """
        for key, what in (("data_sha256", "data or another partition"), ("parameters", "model")):
            if self.manifest["identity"][key] != identity[key]:
                raise ConfigError(f"{self.path} was made with other {what}: resume with what the run was started with.")

    def _check(self, entry: Mapping[str, Any]) -> None:
        path = self.path / Path(entry["file"]).name
        if not path.exists() or path.stat().st_size != entry["bytes"]:
            raise ConfigError(
                f"{path} is missing or cut off: remove this checkpoint's folder to resume from an older one."
            )
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                raise ConfigError(
                    f"{path} has been altered: remove this checkpoint's folder to resume from an older one."
                )


@dataclass
class Draft:
    """A checkpoint whose files are being written.

    Attributes:
        path: Its folder for now.
    """

    path: Path
    final: Path
    manifest: dict[str, Any]

    def finish(self, files: Mapping[str, Any], keep: int | None) -> Path:
        """Make it a checkpoint, and remove the oldest beyond `keep` (None: keep all)."""
        with (self.path / "manifest.json").open("w") as file:
            json.dump(self.manifest | {"files": files}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        if self.final.exists():  # the same round of an earlier attempt: the same content
            shutil.rmtree(self.final)
        self.path.rename(self.final)
        if keep is not None:
            for old in _complete(self.final.parent)[:-keep]:
                shutil.rmtree(old)
        return self.final


def begin(folder: Path, progress: Progress, identity: Mapping[str, Any], environment: Mapping[str, Any]) -> Draft:
    """Make room for a checkpoint of what the progress is now."""
    final = folder / f"round-{progress.round:06d}"
    part = folder / f".{final.name}-{uuid.uuid4().hex[:8]}"
    part.mkdir(parents=True)
    manifest = {
        "format": FORMAT,
        "progress": asdict(progress),
        "identity": dict(identity),
        "environment": dict(environment),
    }
    return Draft(part, final, manifest)


def latest(folder: Path) -> Checkpoint | None:
    """The newest complete checkpoint of a run, or None.

    Raises:
        ConfigError: Its manifest is of another format.
    """
    complete = _complete(folder)
    if not complete:
        return None
    try:
        manifest = json.loads((complete[-1] / "manifest.json").read_text())
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{complete[-1]}/manifest.json is damaged: remove its folder to resume from an older one."
        ) from error
    if manifest.get("format") != FORMAT:
        raise ConfigError(
            f"{complete[-1]} has format {manifest.get('format')}, but this version reads format {FORMAT}."
        )
    return Checkpoint(complete[-1], manifest)


def _complete(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("round-*/manifest.json"))
