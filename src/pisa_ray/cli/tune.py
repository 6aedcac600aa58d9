"""pisa-ray tune: a search for settings by Ray Tune, from a file to a table and the best training file."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from pisa_ray.actors import RayResources, ray_session
from pisa_ray.actors.imports import import_from
from pisa_ray.cli.search import Search, Tuning
from pisa_ray.engine.files import Folder
from pisa_ray.errors import ConfigError
from pisa_ray.named import current_folder, given_in
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.trainer import PisaTrainer
from pisa_ray.tuning import PisaTrainable, reserve


def _arguments(spec: Search, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of PisaTrainer."""
    return spec.config(chosen).changed(checkpoint_every=None).arguments()


def check(spec: Search) -> None:
    """Try one of the settings, to refuse what does not fit before anything is started.

    Raises:
        ConfigError: If it does not fit, or the metric is not measured.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(spec, spec.first()) | {"run_config": Path(folder) / "run"}
        trainer = PisaTrainer(**arguments, progress=False)
    if spec.file.metric not in trainer.measured:
        remedy = ", or set base.data.validation." if spec.file.metric.startswith("validation") else "."
        raise ConfigError(
            f"metric is {spec.file.metric}, but the runs do not measure it: use one of "
            f"{', '.join(trainer.measured)}{remedy}"
        )
    if spec.file.metric.startswith("test"):
        raise ConfigError("metric is of test rows, by which nothing should be chosen: set base.data.validation.")


def _build(search: Search, path: Sequence[str], folder: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a trial, in its process, which then can import what the driver can."""
    import_from(path)
    given_in(folder)
    return _arguments(search, chosen)


def search(spec: Search, out: Path, *, resume: bool = False, progress: bool = True) -> str:
    """Run a search and write table.md, table.json and best.yaml to its folder.

    Args:
        spec: The file.
        out: The folder, which has Tune's own files, too.
        resume: Whether to go on with the search in the folder.
        progress: Whether to show Tune's table.

    Returns:
        "finished" or "interrupted".

    Raises:
        ConfigError: If something in the file cannot be used; nothing has been started then.
    """
    out, file = out.resolve(), spec.file
    if resume and not (out / "tuner.pkl").exists():
        raise ConfigError(f"{out} holds no search: leave --resume out.")
    if not resume and any(trial.stat().st_size for trial in out.glob("*/result.json")):
        raise ConfigError(f"{out} holds a search: use --resume.")
    check(spec)
    cores = os.cpu_count() or 1
    with ray_session(cores, cores, RayResources(), file.ray_address, hanging=lambda text: None):
        return _search(spec, out, resume=resume, progress=progress)


def _search(spec: Search, out: Path, *, resume: bool, progress: bool) -> str:
    file = spec.file
    scale = spec.config(spec.first()).scaling
    trainable = tune.with_parameters(
        PisaTrainable, build=partial(_build, spec, sys.path, current_folder()), every=file.every
    )
    trainable = tune.with_resources(trainable, reserve(scale.most, scale.cpus, scale.gpus))
    if resume:
        tuner = tune.Tuner.restore(str(out), trainable=trainable, resume_unfinished=True, restart_errored=True)
    else:
        tuner = _tuner(file, trainable, out, progress=progress)
    results = tuner.fit()
    trials = results._experiment_analysis.trials
    # After a SIGINT Tune calls all trials terminated, but the last result of an unfinished one is not done.
    if any(trial.status != "ERROR" and not (trial.last_result or {}).get("done") for trial in trials):
        return "interrupted"
    _write(spec, results, out)
    return "finished"


def _tuner(file: Tuning, trainable: Any, out: Path, *, progress: bool) -> tune.Tuner:
    searcher: Any = None
    if file.searcher == "optuna":
        try:
            from ray.tune.search.optuna import OptunaSearch

            searcher = OptunaSearch(metric=file.metric, mode=file.mode, seed=file.seed)
        except ImportError as error:
            raise ConfigError("searcher is optuna, but that is not installed: pip install 'pisa-ray[tune]'.") from error
    elif file.searcher == "random":
        searcher = BasicVariantGenerator(random_state=file.seed)
    scheduler = None
    if file.scheduler == "asha":
        rounds = int(file.base.get("rounds", Config.rounds))
        scheduler = ASHAScheduler(time_attr="round", max_t=rounds, grace_period=min(file.every, rounds))
    return tune.Tuner(
        trainable,
        param_space={key: domain.build() for key, domain in file.space.items()},
        tune_config=tune.TuneConfig(
            metric=file.metric,
            mode=file.mode,
            num_samples=file.samples,
            search_alg=searcher,
            scheduler=scheduler,
            max_concurrent_trials=file.concurrent,
        ),
        run_config=tune.RunConfig(
            name=out.name,
            storage_path=str(out.parent),
            verbose=1 if progress else 0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=2, checkpoint_at_end=False),
        ),
    )


def _write(spec: Search, results: Any, out: Path) -> None:
    """Write the table, best trial first, and the training file of the best trial."""
    metric, sign = spec.file.metric, -1 if spec.file.mode == "max" else 1
    rows = []
    for result in results:
        numbers = result.metrics or {}
        test = {key: value for key, value in numbers.items() if key.startswith("test_")}
        rows.append(
            {"settings": dict(result.config or {}), "rounds": numbers.get("round"), metric: numbers.get(metric)} | test
        )

    def place(row: dict[str, Any]) -> tuple[float, str]:  # equal rows always have the same order
        value = row[metric]
        worth = sign * value if isinstance(value, int | float) else math.inf
        return worth, json.dumps(row["settings"], sort_keys=True)

    rows.sort(key=place)
    folder = Folder(str(out))
    folder.write("table.json", json.dumps(rows, indent=1).encode())
    names = [*spec.file.space, "rounds", metric, *(key for key in rows[0] if key.startswith("test_"))]
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for row in rows:
        values = [row["settings"].get(name, row.get(name)) for name in names]
        lines.append("| " + " | ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values) + " |")
    folder.write("table.md", ("\n".join(lines) + "\n").encode())
    best = spec.config(rows[0]["settings"]).written()
    folder.write("best.yaml", yaml.safe_dump(best, sort_keys=False, allow_unicode=True).encode())
