"""What is compared: data sets, partitions, methods with nothing set and methods that are tuned."""

from __future__ import annotations

from dataclasses import dataclass, field

from small_losses import SMALL
from studies.rows import BASES, PARTITIONS, SGD, TRAPEZOID, Row, row

#: What a file without any setting of an optimizer means.
UNTOUCHED = {"untouched": row("auto")}

SHORT_RISE = {"sigma_schedule": {"kind": "trapezoid", "warmup": 0.1, "cooldown": 0.4}}


def sgd(lr: float) -> Row:
    return row("sync", lr=lr, optimizer="sgd", options=SGD)


#: Settings to choose from, five for each.
NETWORKS: dict[str, list[Row]] = {
    "SISA-D": [
        *(row("sisa_d", sigma=s, rho=19 * s) | TRAPEZOID for s in (20, 10, 40)),
        *(row("sisa_d", sigma=s, rho=9 * s) for s in (30, 60)),
    ],
    "sync Adam": [
        *(row("sync", lr=lr) for lr in (0.006, 0.003, 0.01)),
        *(row("sync", lr=lr) | TRAPEZOID for lr in (0.006, 0.015)),
    ],
    "sync SGD": [
        *(sgd(lr) for lr in (0.03, 0.1)),
        *(sgd(lr) | TRAPEZOID for lr in (0.1, 0.03, 0.3)),
    ],
}

#: For the character GPT, whose gradients are others.
LANGUAGE: dict[str, list[Row]] = {
    "SISA-D": [
        *(row("sisa_d", sigma=s, rho=19 * s) | TRAPEZOID for s in (100, 200, 400)),
        *(row("sisa_d", sigma=s, rho=19 * s) | SHORT_RISE for s in (200, 400)),
    ],
    "sync Adam": [
        *(row("sync", lr=lr) | SHORT_RISE for lr in (0.002, 0.001, 0.004)),
        *(row("sync", lr=lr) for lr in (0.001, 0.002)),
    ],
    "sync SGD": [sgd(lr) | SHORT_RISE for lr in (0.1, 0.03, 0.3, 1.0, 0.01)],
}


@dataclass(frozen=True)
class Dataset:
    """What is trained on what.

    Attributes:
        base: Keys of a training file, without any of an optimizer.
        partitions: By name; settings are searched for on the first.
        candidates: Settings by rival.
        untouched: Methods with nothing set.
        metric: What counts, of validation and test rows.
        made: Whether the study makes its files, in its own folder.
    """

    base: Row
    partitions: dict[str, Row]
    candidates: dict[str, list[Row]] = field(default_factory=lambda: NETWORKS)
    untouched: dict[str, Row] = field(default_factory=lambda: UNTOUCHED)
    metric: str = "accuracy"
    made: bool = False


def _four(shards: int) -> dict[str, Row]:
    return {name: PARTITIONS[name](shards) for name in ("one label", "two labels", "Dirichlet(0.1)", "IID")}


DATASETS = {
    **{name: Dataset(BASES[name], _four(10)) for name in ("MNIST", "Fashion-MNIST", "CIFAR-10")},
    "Adult": Dataset(
        {
            "data": {
                "train": "adult/train.parquet",
                "test": "adult/test.parquet",
                "input": "features",
                "label": "label",
            },
            "model": {"kind": "mlp", "hidden": [32, 16, 8]},
            "rounds": 500,
            "batch_size": 64,
        },
        {name: p for name, p in _four(4).items() if name != "two labels"},  # there are but two
    ),
    "digits": Dataset(BASES["digits"] | {"rounds": 200}, _four(10)),
    "recipes": Dataset(
        {
            "data": {
                "train": "recipes/train.parquet",
                "test": "recipes/test.parquet",
                "input": "characters",
                "label": "next",
            },
            "model": {"factory": "character_gpt:GPT"},
            "rounds": 200,
            "batch_size": 4,
        },
        {"in order": {"kind": "by_column", "column": "part"}, "IID": {"kind": "iid", "shards": 4}},
        LANGUAGE,
        UNTOUCHED | {"SISA-D, untouched": row("sisa_d")},
        "loss",
        made=True,
    ),
}


@dataclass(frozen=True)
class Preset:
    """What is run.

    Attributes:
        datasets: Which, of DATASETS and of SMALL.
        seeds: Of the table.
        search_seeds: Of the search; none of them is in the table.
        budget: Settings that every rival has to choose from.
    """

    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    search_seeds: tuple[int, ...] = (100,)
    budget: int = 5


PRESETS = {
    "small": Preset(("digits",), (0,), budget=2),
    "losses": Preset(tuple(SMALL), (0, 1)),
    "ninety": Preset((*SMALL, "Fashion-MNIST", "MNIST", "CIFAR-10", "Adult", "digits", "recipes"), (0, 1)),
    "full": Preset((*SMALL, *DATASETS), (0, 1, 2, 3, 4), (100, 101, 102)),
}
