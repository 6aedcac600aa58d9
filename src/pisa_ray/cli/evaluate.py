"""Measures the saved model of a run on the test data, and on the rows of each shard."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pisa_ray.checks import shown
from pisa_ray.cli.recorded import prepared
from pisa_ray.engine.evaluation import means
from pisa_ray.engine.flat_model import load_weights, weights_sha256
from pisa_ray.engine.numerics import borrowed_process
from pisa_ray.engine.worker import Worker
from pisa_ray.errors import ConfigError, PisaError
from pisa_ray.named import is_unnamed
from pisa_ray.trainer.changes import Changes
from pisa_ray.trainer.resume import check_data
from pisa_ray.trainer.run_directory import RunDirectory


def evaluate(
    run_dir: Path,
    *,
    trust: bool = False,
    train: str | None = None,
    test: str | None = None,
    model: str | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Evaluate `model.safetensors` of a run, in this process.

    Args:
        run_dir: The run directory.
        trust: Whether to run code that the directory names and that is not of an installed package.
        train: The path or URI of the training data now; None: it has not changed.
        test: The path or URI of the test data now; None: it has not changed.
        model: "package.module:function" that makes the model; None: the recorded model.
        settings: Overrides of the recorded settings, as "key.path=value".

    Returns:
        "weights_sha256" (recomputed), "test" (means over the test rows, if there are any) and "shards" (rows, loss and
        metrics over the training rows of each shard that was part of the problem at the end).

    Raises:
        ConfigError: If the folder is not a run, has no saved model or one that its result.json does not name, or its
            configuration names something that is missing or has no name, or the data have changed.
    """
    directory = RunDirectory(run_dir)
    recorded = directory.config()
    if not directory.model.exists():
        raise ConfigError(f"{run_dir} has no model.safetensors yet: let the run end, or resume it.")
    began = prepared(recorded, run_dir.resolve(), trust=trust, train=train, test=test, model=model, settings=settings)
    _check_data(directory, began.partition["data"], recorded.get("data") or {})
    job = Changes(began).after(directory.records.changes())
    with borrowed_process(job.threads_per_worker):
        worker = Worker(job, process_is_ours=False)
        load_weights(worker.model.module, directory.model)
        digest = weights_sha256(worker.model.module)
        _check_same(directory, digest)
        published = worker.model.published()
        worker.host(job.present)
        tested: Mapping[str, float] = {}
        if job.test is not None:
            tested = means(worker.evaluate(published, "test", job.blocks("test")).values())
        shards = worker.evaluate_shards(published, job.present, held_out=False)
    return {
        "weights_sha256": digest,
        "test": dict(tested),
        "shards": [{"shard": i, "rows": int(sums["rows"]), **means([sums])} for i, sums in shards.items()],
    }


def _read(directory: RunDirectory, name: str, measured: str) -> Any:
    """Return the content of a JSON file of the run, or {} if it does not exist."""
    file = directory.path / name
    if not os.path.lexists(file):
        return {}
    try:
        return directory.read(name)
    except PisaError as error:
        raise ConfigError(f"{file} cannot be read: remove it to measure the model {measured}.") from error


def _check_data(directory: RunDirectory, now: Mapping[str, str | None], places: Mapping[str, Any]) -> None:
    """Refuse data whose fingerprints are not those in partition.json, if that exists."""
    file = directory.path / "partition.json"
    known = _read(directory, file.name, "on the present data")
    # What was in memory has another hash than a file of it.
    measured = {split: now[split] for split in ("train", "test") if not is_unnamed(places.get(split))}
    remedy = f"give those data, wherever they lie, or remove {file} to measure the model on these."
    check_data(known.get("data") if isinstance(known, dict) else None, measured, remedy)


def _check_same(directory: RunDirectory, digest: str) -> None:
    """Refuse a model whose hash is not that in result.json, if that exists."""
    file = directory.path / "result.json"
    end = _read(directory, file.name, "without its hash")
    if not isinstance(end, dict):
        raise ConfigError(f"{file} holds no results: remove it to measure the model without its hash.")
    known = end.get("weights_sha256")
    if known is not None and known != digest:
        raise ConfigError(
            f"{directory.model} has weights_sha256 {digest}, but {file.name} says {shown(known)}: the model was "
            "altered, or is another run's; put the right one back, or remove result.json to measure this one."
        )


def table(measured: dict[str, Any]) -> str:
    """Return the measurements as a table."""
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
