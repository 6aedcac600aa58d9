"""Population based training of the penalty's growth, without the traps of Ray Tune 2.60."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

#: The values of a setting in order, or (least, most) for any value between the two.
Range = Sequence[Any] | tuple[float, float]


def population(
    ranges: Mapping[str, Range],
    *,
    interval: int,
    metric: str = "validation_accuracy",
    mode: str = "max",
    **more: Any,
) -> PopulationBasedTraining:
    """Return a scheduler by which the worst quarter of the trials take over states and similar settings of the best.

    It is asynchronous, since a synchronous one waits for ever after `Tuner.restore`, and it keeps a mutated number
    within its range, which Tune does not. Keep at least four checkpoints of a trial, else one may be deleted before it
    is taken.

    Args:
        ranges: For each key of the config, a list of values, where a mutation takes the next one to the left or right,
            or a tuple (least, most), where it multiplies the value by 0.8 or 1.2. A quarter of the mutations draw anew.
        interval: Rounds from one look at a trial to the next.
        metric: A metric of held-out rows.
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
