"""From a configuration to a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pisa_ray.cli.config import Config, Workers, note_planned_rounds, plain, resolve
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.data import Opened
from pisa_ray.trainer.result import Result
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.settings import Scaling
from pisa_ray.trainer.trainer import PisaTrainer


def train(
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    data: Opened | None = None,
) -> Result:
    """Run a configuration.

    Args:
        config: What to run.
        out: The run directory.
        resume: Go on from its last checkpoint.
        overwrite: Replace it.
        progress: Show progress.
        data: What config.data names, where it has been opened already.

    Returns:
        The result.

    Raises:
        ConfigError: Something in it cannot be used; nothing has been started.
        PisaError: The run failed.
    """
    run = config.checkpoint.build(out, config.max_failures)
    known = resume and config.sigma_schedule is None
    note_planned_rounds(config, RunDirectory(run.path, run.storage).planned_rounds() if known else None)
    return PisaTrainer(
        **job_arguments(config, data),
        rounds=config.rounds,
        sigma_schedule=config.sigma_schedule,
        evaluate_every=config.evaluate_every,
        checkpoint_every=config.checkpoint.every,
        stop_seconds=config.stop.seconds,
        stop_test_accuracy=config.stop.test_accuracy,
        scaling_config=scaling(config),
        run_config=run,
        replay=config.asynchronous.replay if config.asynchronous is not None else None,
        resume=resume,
        overwrite=overwrite,
        exact=config.exact,
        ray_address=config.ray.address,
        progress=progress,
        warn=progress,
        config=plain(config),
    ).fit()


def job_arguments(config: Config, data: Opened | None = None) -> dict[str, Any]:
    """The arguments of PisaTrainer that determine the result of a round; data where they have been opened already."""
    data, method = data or config.data.open(pinned=config.pin_to is not None), resolve(config)
    if config.model.kind is not None:
        if config.data.dtype == "int64":
            raise ConfigError(
                f"data.dtype is int64, but model.kind {config.model.kind} takes real numbers: leave data.dtype out, or "
                "use a model.factory."
            )
        data = replace(data, preprocess=replace(data.preprocess, dtype=torch.float32))
    return {
        "model": config.model.build(data),
        "data": data,
        "partition": config.partition,
        "algorithm": method,
        "loss": config.loss,
        "evaluate": config.metrics,
        "batch_size": None if config.batch_size == "full" else config.batch_size,
        "micro_batch_size": config.micro_batch_size,
        "clip_norm": config.clip_norm,
        "autocast": config.autocast == "bfloat16",
        "shard_weights": config.shard_weights,
        "participation": config.participation,
        "asynchronous": config.asynchronous.build() if config.asynchronous is not None else None,
        "pin_to": config.pin_to,
        "robust": config.robust,
        "threads_per_worker": config.threads_per_worker,
        "compiled": config.compiled,
        "seed": config.seed,
    }


def scaling(config: Config) -> Scaling:
    """How wide a configuration is run."""
    workers = config.workers
    least, most = (workers.min, workers.max) if isinstance(workers, Workers) else (workers, workers)
    return Scaling(
        least,
        most,
        config.cpus_per_worker,
        config.gpus_per_worker,
        labels=config.worker_labels,
        patience=config.patience,
        frozen_after=config.frozen_after,
    )
