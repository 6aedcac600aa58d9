"""The result of fit()."""

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
        metrics: The last evaluated round's row, with weights_sha256 and best values, as in result.json.
        path: The run directory.
        checkpoint: The folder of the last complete checkpoint: a path, or a URI if it is not on a local disk.
        best_checkpoint: The folder of the best checkpoint, if checkpoints are kept by a metric and one has it.
        job: The job.
    """

    status: str
    metrics: dict[str, Any]
    path: Path
    checkpoint: Path | str
    best_checkpoint: Path | str | None = None
    job: Job | None = field(default=None, repr=False, compare=False)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of all evaluated rounds, read from metrics.jsonl."""
        return list(RunDirectory(self.path).records.rows())

    @property
    def weights_sha256(self) -> str:
        """The hash of the final model's weights."""
        return str(self.metrics["weights_sha256"])

    def load_model(self, *, best: bool = False) -> Trained:
        """Load the model that the run has trained; see `pisa_ray.load`.

        Args:
            best: Whether to take the weights of the best checkpoint, and not those of the last round.

        Raises:
            ConfigError: If there are no such weights.
        """
        if self.job is None:
            return load(self.path, best=best)
        return loaded(RunDirectory(self.path), self.job.model, self.job.preprocess, self.job.method if best else None)

    @property
    def model_path(self) -> Path:
        """The safetensors file of the final model."""
        return RunDirectory(self.path).model
