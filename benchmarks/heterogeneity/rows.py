"""What is compared: data sets, partitions, algorithms, and the settings that the search may choose from.

Every algorithm has the same number of settings to choose from. FedAvg and its kin take ten local steps a round (FedNova
a tenth of an epoch, as it differs from FedAvg only where shards take unequal steps), so that they get a tenth of the
rounds for the same gradients; with one local step FedAvg is synchronous SGD, which has a row of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]

GROWTH = {"sigma_schedule": {"kind": "geometric", "gamma": 0.95, "k0": 10}}  # of sigma; else of 1/lr: a decay


def row(kind: str, growth: bool = False, **settings: Any) -> Row:
    """A row of a comparison; with growth, the penalty grows (the learning rate falls) 2.8-fold over 200 rounds."""
    return {"algorithm": {"kind": kind, **settings}} | (GROWTH if growth else {})


def local(kind: str, lr: float, momentum: float = 0.0, **settings: Any) -> Row:
    return row(kind, lr=lr, momentum=momentum, **({} if "epochs" in settings else {"steps": 10}), **settings)


SGD = {"momentum": 0.9}
FEDAVG = ((0.01, 0.9), (0.1,), (0.3,), (0.03,), (0.01,), (0.03, 0.9))
FEDADAM = ((0.03, 0.003), (0.03, 0.01), (0.1, 0.01), (0.03, 0.001), (0.01, 0.003), (0.3, 0.01))

#: Settings to choose from, on images; the first ones are what earlier short experiments or the papers suggest.
IMAGES: dict[str, list[Row]] = {
    "SISA": [
        row("sisa", sigma=s, rho=r, growth=g)
        for s, r, g in (
            (1.0, 200, True),
            (2.0, 100, False),
            (0.5, 100, True),
            (2.0, 400, True),
            (1.5, 150, True),
            (2.0, 200, False),
        )
    ],
    "SISA-D": [
        row("sisa_d", g, sigma=s, rho=9 * s)
        for s, g in ((60, False), (30, False), (30, True), (20, True), (60, True), (20, False))
    ],
    "NSISA": [row("nsisa", sigma=s, rho=r) for s, r in ((20, 80), (10, 40), (40, 100), (60, 100), (40, 50), (40, 200))],
    "sync Adam": [
        row("sync", g, lr=lr)
        for lr, g in ((0.006, False), (0.01, False), (0.003, False), (0.006, True), (0.01, True), (0.015, False))
    ],
    "sync SGD": [
        row("sync", g, lr=lr, optimizer="sgd", options=SGD)
        for lr, g in ((0.03, False), (0.1, False), (0.1, True), (0.06, False), (0.06, True), (0.2, True))
    ],
    "FedAvg": [local("fedavg", *pair) for pair in FEDAVG],
    "FedProx": [
        local("fedprox", lr, mu=mu)
        for lr, mu in ((0.1, 0.1), (0.1, 1.0), (0.3, 0.1), (0.3, 1.0), (0.1, 5.0), (0.03, 0.1))
    ],
    "FedNova": [local("fednova", *pair, epochs=0.1) for pair in FEDAVG],
    "SCAFFOLD": [
        *(local("scaffold", lr) for lr in (0.03, 0.1, 0.3, 0.01)),
        *(local("scaffold", lr, server_lr=0.3) for lr in (0.03, 0.1)),
    ],
    "MOON": [
        local("moon", lr, mu=mu) for lr, mu in ((0.1, 1.0), (0.1, 5.0), (0.3, 1.0), (0.1, 0.1), (0.03, 1.0), (0.3, 0.1))
    ],
    "FedAdam": [local("fedadam", lr, server_lr=s) for lr, s in FEDADAM],
    "FedYogi": [local("fedyogi", lr, server_lr=s) for lr, s in FEDADAM],
}

#: The same on the small network of Adult, whose gradients are larger.
ADULT: dict[str, list[Row]] = IMAGES | {
    "SISA": [
        *(row("sisa", True, sigma=s, rho=30 * s) for s in (1.0, 0.3, 3.0)),
        *(row("sisa", sigma=s, rho=30 * s) for s in (1.0, 3.0, 0.3)),
    ],
    "SISA-D": [
        *(row("sisa_d", g, sigma=s, rho=9 * s) for s, g in ((30, False), (60, False), (30, True))),
        *(row("sisa_d", g, sigma=s, rho=9 * s) for s, g in ((60, True), (100, False), (15, True))),
    ],
}


@dataclass(frozen=True)
class Dataset:
    """Where rows are, what is trained on them, for how long, and the partitions.

    Attributes:
        base: Keys of a training file.
        shards: m.
        candidates: Settings by algorithm.
        made: Whether the study makes its files, in its own folder.
    """

    base: Row
    shards: int
    candidates: dict[str, list[Row]]
    made: bool = False

    def partition(self, name: str) -> Row:
        found: Row = PARTITIONS[name](self.shards)
        return found


def _labels(number: int) -> Any:
    return lambda shards: {"kind": "labels_per_shard", "shards": shards, "labels": number}


PARTITIONS: dict[str, Any] = {
    "one label": _labels(1),
    "two labels": _labels(2),
    "three labels": _labels(3),
    "Dirichlet(0.5)": lambda shards: {"kind": "dirichlet", "shards": shards, "alpha": 0.5},
    "Dirichlet(0.1)": lambda shards: {"kind": "dirichlet", "shards": shards, "alpha": 0.1},
    "quantity skew": lambda shards: {"kind": "quantity", "shards": shards, "alpha": 0.5},
    "feature noise": lambda shards: {"kind": "feature_noise", "shards": shards, "level": 0.3},
    "one language": lambda shards: {"kind": "by_column", "column": "language"},
    "IID": lambda shards: {"kind": "iid", "shards": shards},
    # Shards that contradict each other
    "by brightness": lambda shards: {"kind": "by_feature", "shards": shards},
    "one shard's labels shifted": lambda shards: {"kind": "iid", "shards": shards, "distort": {"kind": "shift_labels"}},
    "rotated by 36 degrees each": lambda shards: {
        "kind": "iid",
        "shards": shards,
        "distort": {"kind": "rotate", "step": 36},
    },
    "recoloured": lambda shards: {"kind": "iid", "shards": shards, "distort": {"kind": "recolour"}},
}


def _images(name: str) -> Dataset:
    base = {
        "data": {"train": f"{name}/train.parquet", "test": f"{name}/test.parquet", "input": "image", "label": "label"},
        "model": {"kind": "lenet"},
        "rounds": 200,
        "batch_size": 64,
    }
    return Dataset(base, 10, IMAGES)


#: For the next letter of a word: of ten settings tried, each algorithm's best three on held-out rows.
LETTERS: dict[str, list[Row]] = {
    "SISA": [row("sisa", True, sigma=s, rho=r) for s, r in ((0.1, 60), (0.3, 60), (0.3, 20))],
    "SISA-D": [row("sisa_d", g, sigma=s, rho=9 * s) for s, g in ((20, True), (30, True), (30, False))],
    "sync Adam": [row("sync", g, lr=lr) for lr, g in ((0.02, True), (0.01, True), (0.006, False))],
    "sync SGD": [
        row("sync", g, lr=lr, optimizer="sgd", options=SGD) for lr, g in ((0.5, True), (0.3, True), (0.4, False))
    ],
    "FedAvg": [local("fedavg", *pair) for pair in ((0.5, 0.9), (1.0,), (0.3, 0.9))],
    "FedProx": [local("fedprox", lr, mu=mu) for lr, mu in ((1.0, 0.001), (2.0, 0.001), (1.0, 0.01))],
    "SCAFFOLD": [local("scaffold", lr) for lr in (1.5, 1.0, 2.0)],
}

DATASETS = {
    "MNIST": _images("mnist"),
    "Fashion-MNIST": _images("fashion_mnist"),
    "CIFAR-10": _images("cifar10"),
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
        4,
        ADULT,
    ),
    "digits": Dataset(
        {
            "data": {"dataset": "digits"},
            "model": {"kind": "mlp", "hidden": [64]},
            "rounds": 40,
            "batch_size": 32,
        },
        10,
        {name: IMAGES[name] for name in ("SISA-D", "sync Adam", "FedAvg", "SCAFFOLD")},
    ),
    "languages": Dataset(
        {
            "data": {
                "train": "languages/train.parquet",
                "test": "languages/test.parquet",
                "input": "context",
                "label": "next",
            },
            "model": {"factory": "languages:NextLetter"},
            "rounds": 200,
            "batch_size": 64,
        },
        8,
        LETTERS,
        made=True,
    ),
}

#: One term at a time: what is left of a method without its preconditioner, its duals, or the growth of its penalty.
ABLATIONS: dict[str, Row] = {
    "SISA": row("sisa", True, sigma=1.0, rho=200),
    "SISA, Q = 0": row("sisa", True, sigma=1.0, rho=0),
    "SISA, duals reset": row("sisa", True, sigma=1.0, rho=200, reset_duals=True),
    "SISA, constant sigma": row("sisa", sigma=1.0, rho=200),
    "SISA-D": row("sisa_d", True, sigma=30, rho=270),
    "SISA-D, Q = 0": row("sisa_d", True, sigma=30, rho=0),
    "SISA-D, duals reset": row("sisa_d", True, sigma=30, rho=270, reset_duals=True),
    "SISA-D, constant sigma": row("sisa_d", sigma=30, rho=270),
    "NSISA": row("nsisa", True, sigma=40, rho=100),
    "NSISA, Q = 0": row("nsisa", True, sigma=40, rho=0),
    "NSISA, duals reset": row("nsisa", True, sigma=40, rho=100, reset_duals=True),
    "NSISA, constant sigma": row("nsisa", sigma=40, rho=100),
}

#: The settings of the paper's code for MNIST (sigma 1e3, rho 1e2, lambda 5e-3, gradients summed over K mini-batches),
#: translated to mean gradients: sigma / K and lambda / K with K = 94 for a digit's 6,000 rows in chunks of 64.
AUTHORS: dict[str, Row] = {
    "SISA, authors' settings": {
        "algorithm": {"kind": "sisa", "sigma": 1e3 / 94, "rho": 100, "lambda": 5e-3 / 94},
        "sigma_schedule": {"kind": "geometric", "gamma": 0.997, "k0": 10},
    }
}

#: FedAvg with more and more local steps and as many gradients: fewer exchanges.
LOCAL_STEPS = (1, 2, 5, 10, 20, 50)
LOCAL_RATES = (0.1,)

#: Three of ten shards report; dual methods and MIFA remember the others.
PARTICIPATION = 0.3
PART: dict[str, list[Row]] = {
    "SISA": [row("sisa", sigma=s, rho=200 * s) for s in (1.0, 2.0, 4.0)],
    "SISA-D": [row("sisa_d", sigma=s, rho=9 * s) for s in (30, 60, 20)],
    "sync Adam": [row("sync", lr=lr) for lr in (0.003, 0.0015, 0.006)],
    "sync SGD": [row("sync", lr=lr, optimizer="sgd", options=SGD) for lr in (0.03, 0.01, 0.003)],
    "FedAvg": IMAGES["FedAvg"][:3],
    "SCAFFOLD": IMAGES["SCAFFOLD"][:3],
    "MIFA": [local("mifa", lr) for lr in (0.03, 0.1, 0.01)],
}


@dataclass(frozen=True)
class Preset:
    """What is run.

    Attributes:
        cells: Partitions by data set.
        seeds: Of the table.
        search_seeds: Of the search; none of them is in the table.
        settings_of: Partitions that take the settings found on another one, by data set.
        studies: What else is run, on MNIST but for languages.
        budget: Settings that every algorithm has to choose from, of the first in its list.
        more: Where that number is another one, by (data set, partition).
        fewer: Data sets where only some algorithms run, but for the cells in `whole`.
        whole: (data set, partition) where all run.
    """

    cells: dict[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    search_seeds: tuple[int, ...] = (100, 101)
    settings_of: dict[str, dict[str, str]] = field(default_factory=dict)
    studies: tuple[str, ...] = ()
    budget: int = 3
    more: dict[tuple[str, str], int] = field(default_factory=dict)
    fewer: dict[str, tuple[str, ...]] = field(default_factory=dict)
    whole: tuple[tuple[str, str], ...] = ()

    def candidates(self, name: str, partition: str) -> dict[str, list[Row]]:
        """What each algorithm that runs there has to choose from."""
        every = DATASETS[name].candidates
        some = every if (name, partition) in self.whole else self.fewer.get(name, every)
        return {a: every[a][: self.more.get((name, partition), self.budget)] for a in some}


#: Without what costs more (MOON: three forward passes a step), is next to another (FedYogi) or is meant for matrices.
SHORT = ("SISA", "SISA-D", "sync Adam", "sync SGD", "FedAvg", "FedProx", "FedNova", "SCAFFOLD", "FedAdam")
SHORTEST = ("SISA", "SISA-D", "sync Adam", "FedAvg", "SCAFFOLD")
FOUR = ("one label", "two labels", "Dirichlet(0.1)", "IID")
EIGHT = (
    "one label",
    "two labels",
    "three labels",
    "Dirichlet(0.5)",
    "Dirichlet(0.1)",
    "quantity skew",
    "feature noise",
    "IID",
)
STUDIES = ("authors", "participation", "ablations", "few exchanges", "local steps", "contradictions", "languages")

PRESETS = {
    "small": Preset({"digits": ("one label", "IID")}, (0,), (100,)),
    "ninety": Preset(
        {"MNIST": FOUR, "Fashion-MNIST": FOUR[:1], "CIFAR-10": FOUR[:1], "Adult": FOUR},
        (0, 1),
        settings_of={
            "MNIST": {"two labels": "one label"},
            "Adult": {"two labels": "one label", "IID": "Dirichlet(0.1)"},
        },
        studies=STUDIES,
        more=dict.fromkeys((("MNIST", "one label"), ("Fashion-MNIST", "one label"), ("CIFAR-10", "one label")), 6),
        fewer=dict.fromkeys(("MNIST", "Adult"), SHORT) | dict.fromkeys(("Fashion-MNIST", "CIFAR-10"), SHORTEST),
        whole=(("MNIST", "one label"),),
    ),
    "full": Preset(
        {
            "MNIST": EIGHT,
            "Fashion-MNIST": EIGHT,
            "CIFAR-10": EIGHT,
            "Adult": tuple(name for name in EIGHT if name != "three labels"),  # it has two
        },
        (0, 1, 2),
        studies=STUDIES,
        budget=6,
    ),
}
