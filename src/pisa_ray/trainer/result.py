"""What fit() returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pisa_ray.trainer.run_directory import RunDirectory


@dataclass(frozen=True)
class Result:
    """The end of a run.

    Attributes:
        status: "finished", "stopped" (a stop condition), or "interrupted" (by a signal; it can be resumed).
        metrics: The last evaluated round's row, with weights_sha256 and best values; what result.json holds.
        path: The run directory.
        checkpoint: The last complete checkpoint's folder: a path, or a URI where it is not on a local disk.
        best_checkpoint: The best one's, where checkpoints are kept by a metric and one has it.
    """

    status: str
    metrics: dict[str, Any]
    path: Path
    checkpoint: Path | str
    best_checkpoint: Path | str | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """All evaluated rounds' rows, read from metrics.jsonl."""
        return list(RunDirectory(self.path).records.rows())

    @property
    def weights_sha256(self) -> str:
        """Hash of the final model's weights."""
        return str(self.metrics["weights_sha256"])

    @property
    def model_path(self) -> Path:
        """The final model, a safetensors file."""
        return RunDirectory(self.path).model
