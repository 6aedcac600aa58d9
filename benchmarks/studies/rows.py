"""Rows of comparisons: data sets, partitions, and the settings that the searches may choose from.

FedAvg and its kin take ten local steps a round (FedNova a tenth of an epoch, as it differs from FedAvg only where
shards take unequal steps), so that they get a tenth of the rounds for the same gradients; with one local step FedAvg is
synchronous SGD, which has a row of its own.
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

GROWTH = {"sigma_schedule": {"kind": "geometric", "gamma": 0.95, "k0": 10}}  # of sigma; else of 1/lr: a decay

#: A larger sigma (a smaller rate) in the first and the last rounds.
TRAPEZOID = {"sigma_schedule": {"kind": "trapezoid"}}

#: The same in the last rounds only.
COOLDOWN = {"sigma_schedule": {"kind": "trapezoid", "warmup": 0.0}}


def row(kind: str, growth: bool = False, **settings: Any) -> Row:
    """A row of a comparison; with growth, the penalty grows (the learning rate falls) 2.8-fold over 200 rounds."""
    return {"algorithm": {"kind": kind, **settings}} | (GROWTH if growth else {})


def nsisa(growth: bool = False, **settings: Any) -> Row:
    """NSISA as in the paper, on any machine."""
    return row("nsisa", growth, rest="paper", precision="float32", **settings)


def local(kind: str, lr: float, momentum: float = 0.0, **settings: Any) -> Row:
    return row(kind, lr=lr, momentum=momentum, **({} if "epochs" in settings else {"steps": 10}), **settings)


SGD = {"momentum": 0.9}
FEDAVG = ((0.01, 0.9), (0.1,), (0.3,), (0.03,), (0.01,), (0.03, 0.9))
FEDADAM = ((0.03, 0.003), (0.03, 0.01), (0.1, 0.01), (0.03, 0.001), (0.01, 0.003), (0.3, 0.01))

#: Settings to choose from, on images; the first ones are what earlier short experiments or the papers suggest.
IMAGES: dict[str, list[Row]] = {
    "SISA": [
        row("sisa", True, sigma=1.0, rho=200),
        row("sisa", sigma=2.0, rho=100),
        row("sisa", sigma=2.0, rho=200) | COOLDOWN,
        row("sisa", sigma=1.5, rho=150) | COOLDOWN,
        row("sisa", True, sigma=1.5, rho=150),
        row("sisa", sigma=2.0, rho=200),
    ],
    "SISA-D": [
        row("sisa_d", sigma=20, rho=380) | TRAPEZOID,
        row("sisa_d", sigma=30, rho=270),
        row("sisa_d", sigma=60, rho=540),
        row("sisa_d", sigma=10, rho=190) | TRAPEZOID,
        row("sisa_d", sigma=40, rho=760) | TRAPEZOID,
        row("sisa_d", True, sigma=30, rho=270),
    ],
    "NSISA": [nsisa(sigma=s, rho=r) for s, r in ((20, 80), (10, 40), (40, 100), (60, 100), (40, 50), (40, 200))],
    "sync Adam": [
        row("sync", lr=0.006),
        row("sync", lr=0.015) | TRAPEZOID,
        row("sync", lr=0.003),
        row("sync", lr=0.01),
        row("sync", lr=0.006) | TRAPEZOID,
        row("sync", True, lr=0.01),
    ],
    "sync SGD": [
        row("sync", lr=lr, optimizer="sgd", options=SGD) | shape
        for lr, shape in ((0.03, {}), (0.1, {}), (0.1, COOLDOWN), (0.06, COOLDOWN), (0.06, GROWTH), (0.1, GROWTH))
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

#: The same where few shards report.
FEW_REPORT: dict[str, list[Row]] = {
    "SISA": [row("sisa", sigma=s, rho=200 * s) for s in (1.0, 2.0, 4.0, 0.5, 8.0, 16.0)],
    "NSISA": IMAGES["NSISA"],
    "sync Adam": [row("sync", lr=lr) for lr in (0.003, 0.0015, 0.006, 0.001, 0.0005, 0.01)],
    "Adam, remembered": [row("sync", lr=lr, remember=True) for lr in (0.003, 0.001, 0.006, 0.002, 0.0005, 0.01)],
    "sync SGD": [row("sync", lr=lr, optimizer="sgd", options=SGD) for lr in (0.03, 0.01, 0.003, 0.1, 0.001, 0.06)],
    "FedAvg": IMAGES["FedAvg"],
    "FedProx": IMAGES["FedProx"],
    "SCAFFOLD": IMAGES["SCAFFOLD"],
    "MIFA": [local("mifa", *pair) for pair in ((0.03,), (0.1,), (0.01,), (0.003,), (0.01, 0.9), (0.3,))],
}


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


def _images(name: str) -> Row:
    return {
        "data": {"train": f"{name}/train.parquet", "test": f"{name}/test.parquet", "input": "image", "label": "label"},
        "model": {"kind": "lenet"},
        "rounds": 200,
        "batch_size": 64,
    }


#: Keys of a training file: where rows are, what is trained on them, and for how long where all of ten shards report.
BASES: dict[str, Row] = {
    "MNIST": _images("mnist"),
    "Fashion-MNIST": _images("fashion_mnist"),
    "CIFAR-10": _images("cifar10"),
    "digits": {
        "data": {"dataset": "digits"},
        "model": {"kind": "mlp", "hidden": [64]},
        "rounds": 40,
        "batch_size": 32,
    },
}
