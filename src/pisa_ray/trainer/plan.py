"""The plan of a run, made from its options and checked before anything is started or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pisa_ray.engine.asynchrony import Arrivals, read_arrivals
from pisa_ray.errors import ConfigError
from pisa_ray.schedulers import SigmaSchedule
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.data import Opened
from pisa_ray.trainer.places import Places
from pisa_ray.trainer.prepare import Prepared, pinned, prepare
from pisa_ray.trainer.resume import fixed
from pisa_ray.trainer.start import settled


@dataclass(frozen=True)
class Plan:
    """A run that is ready to begin.

    Attributes:
        config: The options, with the method and the sigma schedule filled in.
        prepared: The job, and what is known of it.
        sigma: The sigma schedule.
        places: Starts the processes.
        recorded: The content of config.yaml.
        identity: What a checkpoint must have in common with the run to be resumed.
    """

    config: Config
    prepared: Prepared
    sigma: SigmaSchedule
    places: Places
    recorded: Mapping[str, Any]
    identity: Mapping[str, Any]


def plan(config: Config, opened: Opened | None, planned: int | None) -> Plan:
    """Make a plan from options.

    Args:
        config: The options.
        opened: The data, if they have been opened already.
        planned: The rounds that a resumed run was planned over; None: those of the options.

    Raises:
        ConfigError: If the run would fail for a reason that can be known now.
    """
    config = settled(config, planned)
    prepared = prepare(config, opened)
    job = prepared.job
    sigma = cast("SigmaSchedule", config.sigma_schedule)  # which is settled
    sigma.check(job.method.duals, type(job.method).__name__, job.asynchronous is None, prepared.metrics)
    pins = pinned(config.pin_to, len(job.shards))
    arrivals = _arrivals(config, len(job.shards))
    _check_pins(config, pins, replaying=arrivals is not None)
    _check_metrics(config, prepared.metrics)
    places = Places(
        config.scaling,
        config.threads_per_worker,
        pins,
        config.run.max_failures,
        config.exact,
        config.ray_address,
        arrivals,
    )
    recorded = config.written()
    identity = {
        "data_sha256": prepared.data_sha256,
        "parameters": [[slot.name, list(slot.shape)] for slot in prepared.layout.slots],
        "rules": job.method.moved(prepared.layout),
        "shards": len(job.shards),
        "settings": fixed(recorded),
    }
    return Plan(config, prepared, sigma, places, recorded, identity)


def _arrivals(config: Config, shards: int) -> Arrivals | None:
    """Read the log of the asynchronous run that is to be repeated, if there is one."""
    rule = config.asynchronous
    if rule is None or rule.replay is None:
        return None
    arrivals = read_arrivals(Path(rule.replay), shards, rule.staleness)
    if config.rounds > len(arrivals):
        raise ConfigError(f"rounds is {config.rounds}, but the log to be repeated has {len(arrivals)}: use no more.")
    return arrivals


def _check_metrics(config: Config, metrics: tuple[str, ...]) -> None:
    """Refuse to stop, or to keep the best checkpoint, by a metric that is not measured."""
    if config.stop_test_accuracy is not None and "test_accuracy" not in metrics:
        raise ConfigError(
            f"stop_test_accuracy is {config.stop_test_accuracy:g}, but this run does not measure test_accuracy and "
            "would never stop by it: give test data, and metrics that return 'accuracy', or leave it out."
        )
    score = config.run.best_by
    if score is not None and score not in metrics:
        raise ConfigError(
            f"checkpoint_score_attribute is {score!r}, but this run does not measure that: use one of "
            f"{', '.join(metrics)}."
        )


def _check_pins(config: Config, pins: tuple[str, dict[int, str]], *, replaying: bool) -> None:
    """Refuse pinned shards that could not all be at home."""
    label, of = pins
    places = set(of.values())
    if not places:
        return
    if replaying:
        raise ConfigError(
            "pin_to keeps rows in their places, but Asynchronous.replay needs all of them: leave one of the two out."
        )
    if config.scaling.most < len(places):
        raise ConfigError(
            f"scaling_config has at most {config.scaling.most} workers, but pin_to names {len(places)} places, and "
            f"each needs a worker of its own: use at least {len(places)}."
        )
    if label in config.scaling.labels:
        raise ConfigError(
            f"the label {label} is in pin_to and in the label selector of scaling_config: leave it out there."
        )
