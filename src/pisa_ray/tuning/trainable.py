"""A run as a trial of Ray Tune, with complete checkpoints and settings that change while it trains."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray
from ray.tune import PlacementGroupFactory, Trainable

from pisa_ray.algorithm import Method
from pisa_ray.errors import ConfigError, NonFiniteError
from pisa_ray.schedulers import SigmaSchedule
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import RESIDUALS
from pisa_ray.trainer.start import method_for, schedule_for
from pisa_ray.trainer.trainer import PisaTrainer

#: Returns the arguments of PisaTrainer, without run_config, given a trial's config.
Build = Callable[[Mapping[str, Any]], Mapping[str, Any]]

#: The keys of a config that may change during a run.
CHANGING = ("sigma", "rho", "gamma", "k0", "growth")


class PisaTrainable(Trainable):
    """A run as a trial; pass its arguments by `tune.with_parameters(PisaTrainable, build=..., every=...)`.

    Its results are the rows of metrics.jsonl, with `round`, and with k0 and gamma if the schedule has them; select by
    metrics that begin with `validation_`. A run that went to NaN reports the worst values until a scheduler gives it
    the state of another trial. A trial ends after `rounds`.

    On a perturbation (PopulationBasedTraining, PB2) a trial takes over the checkpoint of another, with all shards'
    states, w and sigma, and goes on with mutated settings. Give the tuner `reuse_actors=True`, else every perturbation
    starts a new process.

    Args of `setup`:
        build: Returns the arguments of PisaTrainer given the trial's config; `scaling_config` 0 (the default here)
            trains in the trial's own process. Keep the identity of data out of the config, which is copied with the
            state.
        every: Rounds of a step.
        changing: The keys of the config that `build` uses only for the method's numbers and the sigma schedule. If
            another key changes, the run is opened anew.

    Example:
        >>> from pisa_ray import Data, Geometric, LabelSkew, SISA
        >>> from pisa_ray.models import mlp
        >>> def build(config):
        ...     return {
        ...         "model": lambda: mlp((64,), 10), "data": Data(train="digits", validation=0.1),
        ...         "partition": LabelSkew(shards=10), "rounds": 100, "algorithm": SISA(sigma=0.3, rho=30),
        ...         "sigma_schedule": Geometric(0.9, config["k0"])}
        >>> trial = PisaTrainable({"k0": 5}, build=build)
        >>> trial.step()["round"]
        10
        >>> trial.stop()
    """

    def __init__(self, config: dict[str, Any] | None = None, *arguments: Any, **given: Any) -> None:
        self._given = {key: given.pop(key) for key in ("build", "every", "changing") if key in given}
        super().__init__(config or {}, *arguments, **given)

    def setup(
        self,
        config: dict[str, Any],
        build: Build | None = None,
        every: int = 10,
        changing: Collection[str] = CHANGING,
    ) -> None:
        """See the class."""
        build = self._given.get("build", build)
        if build is None:
            raise ConfigError("PisaTrainable has no build: use tune.with_parameters(PisaTrainable, build=...).")
        self._build: Build = build
        self._every: int = self._given.get("every", every)
        self._changing: Collection[str] = self._given.get("changing", changing)
        self._config = dict(config)
        self._open({"scaling_config": 0, **build(config)})

    def _open(self, arguments: Mapping[str, Any]) -> None:
        if arguments.get("asynchronous") is not None:
            raise ConfigError("a trial cannot take over a state in asynchronous rounds: leave asynchronous out.")
        self._folder = Path(tempfile.mkdtemp(prefix="pisa-ray-trial-"))
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        try:
            arguments = {"evaluate_every": arguments.get("rounds", Config.rounds), **arguments}
            trainer = PisaTrainer(**arguments | {"run_config": self._folder / "run"}, progress=False)
            self._steps = self._stack.enter_context(trainer.steps())
            self._first = self._folder / "first"
            self._steps.save(self._first)
        except BaseException:
            self._stack.close()
            raise
        self._names = trainer.measured
        self._method = _method(arguments)
        self._schedule = self._steps.loop.sigma
        self._lost: int | None = None  # the round that the run would be in if it had not gone to NaN
        self._taken: Path | None = None  # the state that was loaded last
        self._anew: Mapping[str, Any] | None = None  # the arguments of a run that the next step opens

    def step(self) -> dict[str, Any]:
        """See Trainable; a step is `every` rounds, and its result the row of the last one."""
        if self._anew is not None:
            self._stack.close()
            self._open(self._anew)
        if self._lost is None:
            try:
                row = self._steps.advance(self._every)
            except NonFiniteError:
                self._lost = self._steps.progress.round // self._every * self._every
        if self._lost is not None:
            self._lost = min(self._lost + self._every, self._steps.rounds)
            row = {name: _worst(name) for name in self._names} | {"round": self._lost}
        schedule, numbers = self._schedule, {key: value for key, value in row.items() if value is not None}
        options = {key: value for key, value in schedule.written().items() if isinstance(value, int | float)}
        done = self._steps.ended or row["round"] >= self._steps.rounds
        return {**options, **numbers, "diverged": self._lost is not None, "done": done}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """See Trainable."""
        if self._lost is None:
            self._steps.save(Path(checkpoint_dir))
        else:
            shutil.copytree(self._first, checkpoint_dir, dirs_exist_ok=True)  # the only good state

    def load_checkpoint(self, checkpoint: dict[str, Any] | str | None) -> None:
        """See Trainable; this trial's settings stay, even if the state was made with others."""
        taken = Path(tempfile.mkdtemp(dir=self._folder))  # Tune may delete its own copy before all of it is read
        shutil.copytree(str(checkpoint), taken, dirs_exist_ok=True)
        self._steps.load(taken, self._method, self._schedule)
        if self._taken is not None:
            shutil.rmtree(self._taken)
        self._lost, self._anew, self._taken = None, None, taken

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """See Trainable; take over settings, so that nothing of another trial is left.

        Next comes either the checkpoint of another trial, or the first step of a new one, and only the latter opens a
        run.

        Returns:
            True.
        """
        new, old = {"scaling_config": 0, **self._build(new_config)}, self._config
        self._config = dict(new_config)
        method = _method(new)
        others = {*new_config, *old} - {*self._changing}
        if type(method) is not type(self._method) or any(new_config.get(k) != old.get(k) for k in others):
            self._stack.close()
            self._open(new)
            return True
        self._method, self._schedule, self._anew = method, _schedule(new, method), new
        return True

    def cleanup(self) -> None:
        """See Trainable."""
        self._stack.close()


def _method(arguments: Mapping[str, Any]) -> Method:
    return method_for(arguments.get("algorithm"), arguments["model"], arguments.get("sigma_schedule"))


def _schedule(arguments: Mapping[str, Any], method: Method) -> SigmaSchedule:
    return schedule_for(arguments.get("sigma_schedule"), method, int(arguments.get("rounds", Config.rounds)))


def _worst(name: str) -> float:
    """Return the worst value of a metric; all but losses and residuals should be large."""
    if name.endswith("accuracy"):
        return 0.0
    small = name.endswith("loss") or name in ("augmented_lagrangian", "consensus_move", *RESIDUALS)
    return math.inf if small else -math.inf


def reserve(workers: int = 0, cpus: float = 1.0, gpus: float = 0.0) -> PlacementGroupFactory:
    """Return the resources of a trial, as a placement group that its own Ray workers are started in.

    Args:
        workers: The workers of a trial, as in its `scaling_config`; 0: it trains in its own process.
        cpus: CPU cores of each worker, or of the trial.
        gpus: GPUs of each worker, or of the trial.

    Returns:
        The argument for `tune.with_resources`.

    Raises:
        ConfigError: If the cluster is too small for a trial, for which Tune would wait for ever.
    """
    each = {name: value for name, value in (("CPU", cpus), ("GPU", gpus)) if value}
    bundles = [each or {"CPU": 0.01}] if workers == 0 else [{}, *[each] * workers]
    if ray.is_initialized():
        there = ray.cluster_resources()  # type: ignore[no-untyped-call]
        for name in ("CPU", "GPU"):
            wanted = sum(bundle.get(name, 0.0) for bundle in bundles)
            if wanted > there.get(name, 0.0):
                raise ConfigError(
                    f"a trial reserves {wanted:g} {name}, but the cluster has {there.get(name, 0.0):g}: use fewer "
                    "workers, or less for each."
                )
    return PlacementGroupFactory(bundles)
