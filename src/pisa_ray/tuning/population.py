"""Population based training of the penalty's growth, without the traps of Ray Tune 2.60."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

#: The values that a setting may have, in order; or (least, most), between which any is.
Range = Sequence[Any] | tuple[float, float]


def population(
    ranges: Mapping[str, Range],
    *,
    interval: int,
    metric: str = "validation_accuracy",
    mode: str = "max",
    **more: Any,
) -> PopulationBasedTraining:
    """A scheduler that lets the worst quarter of the trials take over states of the best, with settings next to theirs.

    Asynchronous, since a synchronous one waits for ever after `Tuner.restore`; and a mutated number is kept within its
    range, which Tune does not do. Keep at least four checkpoints of a trial, else one may be gone before it is taken.

    Args:
        ranges: By key of the config: a list of values, of which the next to the left or right is taken, or a tuple
            (least, most), where the value is multiplied by 0.8 or 1.2; a quarter of the mutations draw anew.
        interval: Rounds between two looks at a trial.
        metric: Of held-out rows.
        mode: "max" or "min".
        **more: Other arguments of PopulationBasedTraining.

    Example:
        >>> scheduler = population({"k0": [1, 2, 5, 10], "sigma": (0.1, 10.0)}, interval=20)
        >>> scheduler._custom_explore_fn({"k0": 5, "sigma": 12.0})
        {'k0': 5, 'sigma': 10.0}
    """
    spans = {key: span for key, span in ranges.items() if isinstance(span, tuple)}
    mutations: dict[str, Any] = {
        key: tune.loguniform(*span) if key in spans else list(span) for key, span in ranges.items()
    }
    return PopulationBasedTraining(
        time_attr="round",
        metric=metric,
        mode=mode,
        perturbation_interval=interval,
        hyperparam_mutations=mutations,
        custom_explore_fn=_kept_within(spans),
        **more,
    )


def _kept_within(spans: Mapping[str, tuple[float, float]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def kept(config: dict[str, Any]) -> dict[str, Any]:
        return config | {key: min(max(config[key], least), most) for key, (least, most) in spans.items()}

    return kept
