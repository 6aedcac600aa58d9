"""pisa-ray tune: a search for settings by Ray Tune, from a file to a table and the best training file."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from pisa_ray.actors import RayResources, ray_session
from pisa_ray.actors.imports import import_from
from pisa_ray.cli.config import Config, RaySection, checked, note_planned_rounds, plain, read
from pisa_ray.cli.config_errors import sentence, shown
from pisa_ray.cli.config_section import Section
from pisa_ray.cli.factories import current_folder, given_in
from pisa_ray.cli.train import job_arguments, scaling
from pisa_ray.engine.files import Folder
from pisa_ray.errors import ConfigError
from pisa_ray.trainer import PisaTrainer
from pisa_ray.tuning import PisaTrainable, reserve

_RANGE = Annotated[list[float], Field(min_length=2, max_length=2)]


class DomainSection(Section):
    """The values that a setting may have: one of these."""

    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    grid: Annotated[list[Any], Field(min_length=1)] | None = None
    uniform: _RANGE | None = None
    loguniform: _RANGE | None = None
    whole: _RANGE | None = None

    @model_validator(mode="after")
    def _one(self) -> DomainSection:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                "must be one of choice, grid, uniform, loguniform or whole, such as {loguniform: [1, 100]}"
            )
        for name in ("uniform", "loguniform", "whole"):
            span = getattr(self, name)
            if span is not None and not (span[0] < span[1] and (name != "loguniform" or span[0] > 0)):
                raise ValueError(f"must be a {name} of two numbers, the smaller one first")
        return self

    def build(self) -> Any:
        """As Tune takes it."""
        if self.choice is not None:
            return tune.choice(self.choice)
        if self.grid is not None:
            return tune.grid_search(self.grid)
        if self.whole is not None:
            return tune.randint(int(self.whole[0]), int(self.whole[1]) + 1)
        return tune.uniform(*self.uniform) if self.uniform is not None else tune.loguniform(*self.loguniform or (1, 2))

    def one(self) -> Any:
        """One of the values, always the same."""
        values = self.choice or self.grid
        if values is not None:
            return values[0]
        if self.whole is not None:
            return int(self.whole[0])
        return (self.uniform or self.loguniform or [1.0])[0]


class TuneSection(Section):
    """The whole file."""

    name: str | None = None
    base: dict[str, Any]
    space: Annotated[dict[str, DomainSection], Field(min_length=1)]
    samples: Annotated[int, Field(ge=1)] = 10
    metric: str = "validation_accuracy"
    mode: Literal["max", "min"] = "max"
    scheduler: Literal["asha"] | None = "asha"
    searcher: Literal["random", "optuna"] = "random"
    every: Annotated[int, Field(ge=1)] = 20
    concurrent: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    ray: RaySection = Field(default_factory=RaySection)


@dataclass(frozen=True)
class Search:
    """A file that has been looked at.

    Attributes:
        file: What it says.
        folder: That data paths are relative to.
    """

    file: TuneSection
    folder: Path

    @classmethod
    def load(cls, path: Path, settings: list[str] | None = None) -> Search:
        """Read a file; overrides are as in `pisa-ray train`.

        Raises:
            ConfigError: The first thing that is wrong, in one sentence.
        """
        values = read(path, settings)
        try:
            file = TuneSection.model_validate(values)
        except ValidationError as error:
            raise ConfigError(sentence(error, values, TuneSection)) from error
        return cls(file, path.resolve().parent)

    def config(self, chosen: Mapping[str, Any]) -> Config:
        """The training file with some values chosen.

        Raises:
            ConfigError: The first thing that is wrong in it.
        """
        values = {"workers": 0, **deepcopy(self.file.base)}
        for key, value in chosen.items():
            *parents, last = key.split(".")
            section = values
            for parent in parents:
                section = section.setdefault(parent, {})
                if not isinstance(section, dict):
                    raise ConfigError(f"space.{key}: {parent} is {shown(section)} and has no keys of its own.")
            section[last] = value
        config = checked(values, self.folder)
        note_planned_rounds(config)
        return config

    def arguments(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Those of PisaTrainer."""
        config = self.config(chosen)
        schedule = config.sigma_schedule
        return {
            **job_arguments(config),
            "rounds": config.rounds,
            "sigma_schedule": None if schedule is None else schedule.build(),
            "scaling_config": scaling(config),
            "checkpoint_every": None,
        }

    def check(self) -> None:
        """Try one of the settings, so that what does not fit shows before anything is started.

        Raises:
            ConfigError: It does not; or the metric is not measured.
        """
        chosen = {key: domain.one() for key, domain in self.file.space.items()}
        with tempfile.TemporaryDirectory() as folder:
            trainer = PisaTrainer(**self.arguments(chosen), run_config=Path(folder) / "run", progress=False)
        if self.file.metric not in trainer.metrics:
            remedy = ", or set base.data.validation." if self.file.metric.startswith("validation") else "."
            raise ConfigError(
                f"metric is {self.file.metric}, but the runs do not measure it: use one of "
                f"{', '.join(trainer.metrics)}{remedy}"
            )
        if self.file.metric.startswith("test"):
            raise ConfigError("metric is of test rows, by which nothing should be chosen: set base.data.validation.")


def _build(search: Search, path: Sequence[str], folder: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """In a trial's process, which should import what the driver can."""
    import_from(path)
    given_in(folder)
    return search.arguments(chosen)


def search(spec: Search, out: Path, *, resume: bool = False, progress: bool = True) -> str:
    """Run a search and write table.md, table.json and best.yaml to its folder.

    Args:
        spec: The file.
        out: The folder; Tune's own files are there, too.
        resume: Go on with the search that is there.
        progress: Whether Tune's table is shown.

    Returns:
        "finished" or "interrupted".

    Raises:
        ConfigError: Something cannot be used; nothing has been started.
    """
    out, file = out.resolve(), spec.file
    if resume and not (out / "tuner.pkl").exists():
        raise ConfigError(f"{out} holds no search: leave --resume out.")
    if not resume and any(trial.stat().st_size for trial in out.glob("*/result.json")):
        raise ConfigError(f"{out} holds a search: use --resume.")
    spec.check()
    cores = os.cpu_count() or 1
    with ray_session(cores, cores, RayResources(), file.ray.address, hanging=lambda text: None):
        return _search(spec, out, resume=resume, progress=progress)


def _search(spec: Search, out: Path, *, resume: bool, progress: bool) -> str:
    file = spec.file
    scale = scaling(spec.config({key: domain.one() for key, domain in file.space.items()}))
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
    # After a SIGINT Tune calls all trials terminated; those that were not done say so themselves.
    if any(trial.status != "ERROR" and not (trial.last_result or {}).get("done") for trial in trials):
        return "interrupted"
    _write(spec, results, out)
    return "finished"


def _tuner(file: TuneSection, trainable: Any, out: Path, *, progress: bool) -> tune.Tuner:
    searcher: Any = None
    if file.searcher == "optuna":
        try:
            from ray.tune.search.optuna import OptunaSearch  # noqa: PLC0415  (an extra)

            searcher = OptunaSearch(metric=file.metric, mode=file.mode, seed=file.seed)
        except ImportError as error:
            raise ConfigError("searcher is optuna, but that is not installed: pip install 'pisa-ray[tune]'.") from error
    elif file.searcher == "random":
        searcher = BasicVariantGenerator(random_state=file.seed)
    scheduler = None
    if file.scheduler == "asha":
        rounds = int(file.base.get("rounds", Config.model_fields["rounds"].default))
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
    """The table, best trial first, and the training file of the best."""
    metric, sign = spec.file.metric, -1 if spec.file.mode == "max" else 1
    rows = []
    for result in results:
        numbers = result.metrics or {}
        test = {key: value for key, value in numbers.items() if key.startswith("test_")}
        rows.append(
            {"settings": dict(result.config or {}), "rounds": numbers.get("round"), metric: numbers.get(metric)} | test
        )

    def place(row: dict[str, Any]) -> tuple[float, str]:  # of equals always the same first
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
    best = plain(spec.config(rows[0]["settings"]))
    folder.write("best.yaml", yaml.safe_dump(best, sort_keys=False, allow_unicode=True).encode())
