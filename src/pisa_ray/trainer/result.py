"""What fit() returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pisa_ray.engine.job import Job
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.trained import Trained, load, loaded


@dataclass(frozen=True)
class Result:
    """The end of a run.

    Attributes:
        status: "finished", "stopped" (a stop condition), or "interrupted" (by a signal; it can be resumed).
        metrics: The last evaluated round's row, with weights_sha256 and best values; what result.json holds.
        path: The run directory.
        checkpoint: The last complete checkpoint's folder: a path, or a URI where it is not on a local disk.
        best_checkpoint: The best one's, where checkpoints are kept by a metric and one has it.
        job: What was trained.
    """

    status: str
    metrics: dict[str, Any]
    path: Path
    checkpoint: Path | str
    best_checkpoint: Path | str | None = None
    job: Job | None = field(default=None, repr=False, compare=False)

    @property
    def history(self) -> list[dict[str, Any]]:
        """All evaluated rounds' rows, read from metrics.jsonl."""
        return list(RunDirectory(self.path).records.rows())

    @property
    def weights_sha256(self) -> str:
        """Hash of the final model's weights."""
        return str(self.metrics["weights_sha256"])

    def load_model(self, *, best: bool = False) -> Trained:
        """Load what the run has learned; see `pisa_ray.load`.

        Args:
            best: Whether to take the weights of the best checkpoint, and not those of the last round.

        Raises:
            ConfigError: If there are no such weights.
        """
        if self.job is None:
            return load(self.path, best=best)
        return loaded(RunDirectory(self.path), self.job.model, self.job.preprocess, best=best)

    @property
    def model_path(self) -> Path:
        """The final model, a safetensors file."""
        return RunDirectory(self.path).model
