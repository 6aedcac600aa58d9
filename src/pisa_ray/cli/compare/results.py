"""Reads the result of a cell from its run directory, without times, so that it is the same whenever it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pisa_ray.cli.compare.cells import Cell
from pisa_ray.cli.compare.run import Outcome
from pisa_ray.cli.compare.work import reports
from pisa_ray.cli.report.text import number
from pisa_ray.errors import PisaError
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.start import method_of

#: The statuses of cells that a resume does not run again.
ENDED = ("finished", "stopped", "diverged")
#: Columns of metrics.jsonl whose last value is in the table, too, if the rows have them.
ALSO = ("test_loss", "validation_worst_shard_accuracy")


@dataclass(frozen=True)
class CellResult:
    """A cell and its result.

    Attributes:
        cell: The cell.
        outcome: How it ended.
        end: The content of its result.json.
        rows: The rows of its evaluated rounds.
        shards: The number of its shards.
    """

    cell: Cell
    outcome: Outcome
    end: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    shards: int = 0

    @property
    def measured(self) -> bool:
        """Whether the cell ran to its end."""
        return self.outcome.status in ("finished", "stopped") and bool(self.rows)

    @property
    def rounds(self) -> int:
        """The rounds done, or the rounds planned if the cell did not run to its end."""
        planned = self.cell.config.rounds
        return int(self.end.get("rounds", planned)) if self.measured else planned

    @property
    def vectors(self) -> float | None:
        """The mean number of vectors of the model's size that a shard sends in the run."""
        if not self.measured:
            return None
        config = self.cell.config
        return reports(self.rounds, config.participation, self.shards) * method_of(config).vectors

    def last(self, key: str) -> float | None:
        """Return the value of the last row."""
        return number(self.rows[-1].get(key)) if self.rows else None

    def best(self, key: str) -> float | None:
        """Return the best value of all evaluated rounds."""
        values = [value for row in self.rows if (value := number(row.get(key))) is not None]
        return (max if larger_is_better(key) else min)(values, default=None)

    def points(self, key: str) -> dict[int, tuple[float, float]]:
        """Return the work done (gradients of single rows) and the value at each evaluated round."""
        found = {int(row["round"]): (float(row["sample_gradients"]), number(row.get(key))) for row in self.rows}
        return {round_: (work, value) for round_, (work, value) in found.items() if value is not None}


def read_result(cell: Cell, outcome: Outcome | None = None) -> CellResult | None:
    """Read the result in a cell's folder.

    Args:
        cell: The cell.
        outcome: How it ended, if that is known; None: as in its result.json.

    Returns:
        The result, or None if it has not ended.
    """
    directory = RunDirectory(cell.path)
    try:
        end, shards = directory.read("result.json"), len(directory.read("partition.json")["shards"])
    except PisaError:  # a file is missing or damaged
        return None if outcome is None else CellResult(cell, outcome)
    status = "diverged" if end.get("error") == "NonFiniteError" else str(end.get("status"))
    outcome = outcome or Outcome(status, str(end.get("message", "")))
    return CellResult(cell, outcome, end, list(directory.records.rows()), shards)


def larger_is_better(key: str) -> bool:
    """Return whether a column of metrics.jsonl should grow.

    Example:
        >>> larger_is_better("validation_accuracy"), larger_is_better("test_loss")
        (True, False)
    """
    return not key.endswith(("loss", "residual", "move", "lagrangian"))


def describe(result: CellResult, score: str) -> dict[str, Any]:
    """Return a cell as an entry of table.json."""
    cell = result.cell
    known = ("sample_gradients", "bytes_sent", "weights_sha256")
    return {
        "algorithm": cell.algorithm,
        "partition": cell.partition,
        "seed": cell.seed,
        "status": result.outcome.status,
        "rounds": result.rounds,
        **{key: result.end.get(key) for key in known},
        f"last_{score}": result.last(score) if result.measured else None,
        f"best_{score}": result.best(score) if result.measured else None,
        "message": result.outcome.message,
        "run": "/".join(cell.path.parts[-4:]),
    }


def summarise(results: Sequence[CellResult], score: str) -> list[dict[str, Any]]:
    """Return a row per algorithm and partition, in the order of the file, partition by partition."""
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for result in results:
        groups.setdefault((result.cell.partition, result.cell.algorithm), []).append(result)
    also = [key for key in ALSO if key != score and any(result.last(key) is not None for result in results)]
    return [_row(group, score, also) for group in groups.values()]


def _row(group: Sequence[CellResult], score: str, also: Sequence[str]) -> dict[str, Any]:
    measured = [result for result in group if result.measured]
    statuses = [result.outcome.status for result in group]
    return {
        "algorithm": group[0].cell.algorithm,
        "partition": group[0].cell.partition,
        "seeds": len(group),
        "measured": len(measured),
        "diverged": statuses.count("diverged"),
        "failed": len(group) - len(measured) - statuses.count("diverged"),
        "rounds": _mean([result.rounds for result in group]),
        "sample_gradients": _mean([result.last("sample_gradients") for result in measured]),
        "bytes_sent": _mean([result.last("bytes_sent") for result in measured]),
        "vectors_per_shard": _mean([result.vectors for result in measured]),
        f"last_{score}": _spread([result.last(score) for result in measured]),
        f"best_{score}": _spread([result.best(score) for result in measured]),
        **{f"last_{key}": _spread([result.last(key) for result in measured]) for key in also},
    }


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Return mean, standard deviation (of a sample) and range, or no values if one is missing."""
    found = [value for value in values if value is not None]
    if not found or len(found) < len(values):
        return dict.fromkeys(("mean", "std", "min", "max"))
    mean = math.fsum(found) / len(found)
    deviation = math.fsum((value - mean) ** 2 for value in found)
    std = math.sqrt(deviation / (len(found) - 1)) if len(found) > 1 else None
    return {"mean": mean, "std": std, "min": min(found), "max": max(found)}


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, as an int if it is a whole number."""
    mean = _spread(values)["mean"]
    return int(mean) if mean is not None and mean == int(mean) else mean
