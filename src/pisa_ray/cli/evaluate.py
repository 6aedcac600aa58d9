"""Measure a run's saved model: on the test data, and on each shard's own rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pisa_ray.cli.recorded import made_by_train, prepared
from pisa_ray.engine.evaluation import means
from pisa_ray.engine.flat_model import load_weights, weights_sha256
from pisa_ray.engine.numerics import borrowed_process
from pisa_ray.engine.worker import Worker
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.changes import Changes
from pisa_ray.trainer.run_directory import RunDirectory


def evaluate(run_dir: Path, *, trust: bool = False) -> dict[str, Any]:
    """Evaluate `model.safetensors` of a run, in this process.

    Args:
        run_dir: The run directory.
        trust: Whether code may be run that it names and that is of no installed package.

    Returns:
        weights_sha256 (recomputed), "test" (means over the test rows, if there are any) and "shards": rows, loss and
        metrics over the own training rows of each shard
        that was part of the problem at the end.

    Raises:
        ConfigError: It is not a run of the command line, or has no saved model yet.
    """
    directory = RunDirectory(run_dir)
    recorded = directory.config()
    if not made_by_train(recorded):
        raise ConfigError(
            f"{run_dir} was not made by pisa-ray train: its config.yaml does not say how to open the data."
        )
    if not directory.model.exists():
        raise ConfigError(f"{run_dir} has no model.safetensors yet: let the run end, or resume it.")
    job = Changes(prepared(recorded, run_dir.resolve(), trust=trust)).again(directory.records.changes())
    with borrowed_process(job.threads):
        worker = Worker(job, process_is_ours=False)
        load_weights(worker.model.module, directory.model)
        published = worker.model.published()
        worker.host(job.present)
        test: Mapping[str, float] = {}
        if job.test is not None:
            test = means(worker.evaluate(published, "test", job.blocks("test")).values())
        shards = worker.evaluate_shards(published, job.present, held_out=False)
    return {
        "weights_sha256": weights_sha256(worker.model.module),
        "test": dict(test),
        "shards": [{"shard": i, "rows": int(sums["rows"]), **means([sums])} for i, sums in shards.items()],
    }


def table(measured: dict[str, Any]) -> str:
    """The same as text."""
    names = [name for name in measured["shards"][0] if name not in ("shard", "rows")]

    def line(where: str, rows: str, values: Mapping[str, float]) -> str:
        return f"{where:<12}{rows:>9}  " + "  ".join(f"{values.get(name, float('nan')):10.4f}" for name in names)

    return "\n".join(
        [
            f"{'on':<12}{'rows':>9}  " + "  ".join(f"{name:>10}" for name in names),
            *([line("test", "", measured["test"])] if measured["test"] else []),
            *(line(f"shard {shard['shard']}", str(shard["rows"]), shard) for shard in measured["shards"]),
            f"weights_sha256 {measured['weights_sha256']}",
        ]
    )
