"""A little comparison file, and changes to it."""

from copy import deepcopy
from typing import Any

FILE: dict[str, Any] = {
    "name": "little",
    "base": {
        "data": {"dataset": "digits"},
        "model": {"kind": "mlp", "hidden": [8]},
        "rounds": 8,
        "batch_size": 8,
        "evaluate_every": 4,
        "checkpoint": {"every": 2},
    },
    "algorithms": {
        "SISA": {"algorithm": {"kind": "sisa", "sigma": 0.3, "rho": 30}},
        "Twice the batch": {"algorithm": {"kind": "sisa", "sigma": 0.3, "rho": 30}, "batch_size": 16},
    },
    "partitions": {"two labels": {"kind": "labels_per_shard", "shards": 5, "labels": 2}},
    "concurrent": 1,
}

SISA_D = {"algorithm": {"kind": "sisa_d", "sigma": 60, "rho": 540}}


def changed(**changes: Any) -> dict[str, Any]:
    """The file with values at dotted keys; __ stands for a dot."""
    values = deepcopy(FILE)
    for place, value in changes.items():
        *above, last = place.split("__")
        inner = values
        for key in above:
            inner = inner[key]
        inner[last] = value
    return values
