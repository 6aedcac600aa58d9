"""What is compared: data sets, partitions, algorithms, and the settings that the search may choose from.

Every algorithm has the same number of settings to choose from.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from studies.rows import BASES, FEW_REPORT, IMAGES, PARTITIONS, SGD, TRAPEZOID, Row, local, nsisa, row

#: The same on the small network of Adult, whose gradients are larger.
ADULT: dict[str, list[Row]] = IMAGES | {
    "SISA": [
        *(row("sisa", True, sigma=s, rho=30 * s) for s in (1.0, 0.3, 3.0)),
        *(row("sisa", sigma=s, rho=30 * s) for s in (1.0, 3.0, 0.3)),
    ],
    "SISA-D": [
        row("sisa_d", sigma=10, rho=190) | TRAPEZOID,
        *(row("sisa_d", sigma=s, rho=9 * s) for s in (30, 60)),
        row("sisa_d", sigma=20, rho=380) | TRAPEZOID,
        *(row("sisa_d", True, sigma=s, rho=9 * s) for s in (30, 60)),
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
    **{name: Dataset(BASES[name], 10, IMAGES) for name in ("MNIST", "Fashion-MNIST", "CIFAR-10")},
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
        BASES["digits"], 10, {name: IMAGES[name] for name in ("SISA-D", "sync Adam", "FedAvg", "SCAFFOLD")}
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
    "NSISA": nsisa(True, sigma=40, rho=100),
    "NSISA, Q = 0": nsisa(True, sigma=40, rho=0),
    "NSISA, duals reset": nsisa(True, sigma=40, rho=100, reset_duals=True),
    "NSISA, constant sigma": nsisa(sigma=40, rho=100),
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

#: One and five local steps of dual methods. With sigma / E five steps go as far as one, on a flat loss.
DUAL_STEPS: dict[str, Row] = {
    "SISA-D, 1 step": row("sisa_d", sigma=30, rho=270),
    "SISA-D, 5 steps, sigma / 5": row("sisa_d", sigma=6, rho=294, local_steps=5),
    "SISA-D, 5 steps, same sigma": row("sisa_d", sigma=30, rho=270, local_steps=5),
    "SISA, 1 step": row("sisa", sigma=1.0, rho=200),
    "SISA, 5 steps, sigma / 5": row("sisa", sigma=0.2, rho=200.8, local_steps=5),
    "SISA, 5 steps, same sigma": row("sisa", sigma=1.0, rho=200, local_steps=5),
}

#: Three of ten shards report; dual methods and MIFA remember the others.
PARTICIPATION = 0.3
PART: dict[str, list[Row]] = {
    "SISA": FEW_REPORT["SISA"][:3],
    "SISA-D": [row("sisa_d", sigma=s, rho=9 * s) for s in (30, 60, 20)],
    **{name: FEW_REPORT[name][:3] for name in ("sync Adam", "sync SGD", "FedAvg", "SCAFFOLD", "MIFA")},
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
        seeds_of: Seeds of the table by (data set, partition), where they are others.
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
    seeds_of: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)

    def candidates(self, name: str, partition: str) -> dict[str, list[Row]]:
        """What each algorithm that runs there has to choose from."""
        every = DATASETS[name].candidates
        some = every if (name, partition) in self.whole else self.fewer.get(name, every)
        return {a: every[a][: self.more.get((name, partition), self.budget)] for a in some}


#: Without what costs more (MOON: three forward passes a step), is next to another (FedYogi) or is meant for matrices.
SHORT = ("SISA", "SISA-D", "sync Adam", "sync SGD", "FedAvg", "FedProx", "FedNova", "SCAFFOLD", "FedAdam")
SHORTEST = ("SISA", "SISA-D", "sync Adam", "FedAvg", "SCAFFOLD")
FOUR = ("one label", "two labels", "Dirichlet(0.1)", "IID")
#: Cells where seeds are points apart.
FIVE_SEEDS = dict.fromkeys((("MNIST", "one label"), ("Fashion-MNIST", "one label")), (0, 1, 2, 3, 4))
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
STUDIES = (
    "authors",
    "participation",
    "ablations",
    "few exchanges",
    "local steps",
    "dual local steps",
    "contradictions",
    "languages",
)

PRESETS = {
    "small": Preset({"digits": ("one label", "IID")}, (0,), (100,)),
    "ninety": Preset(
        {"MNIST": FOUR, "Fashion-MNIST": FOUR[:1], "CIFAR-10": FOUR[:1], "Adult": FOUR},
        (0, 1),
        settings_of={
            "MNIST": {"two labels": "one label"},
            "Adult": {"two labels": "one label", "IID": "Dirichlet(0.1)"},
        },
        studies=("authors", "ablations"),
        more=dict.fromkeys((("MNIST", "one label"), ("Fashion-MNIST", "one label"), ("CIFAR-10", "one label")), 6),
        fewer=dict.fromkeys(("MNIST", "Adult"), SHORT) | dict.fromkeys(("Fashion-MNIST", "CIFAR-10"), SHORTEST),
        whole=(("MNIST", "one label"),),
        seeds_of=FIVE_SEEDS,
    ),
    "full": Preset(
        {
            "MNIST": EIGHT,
            "Fashion-MNIST": EIGHT,
            "CIFAR-10": EIGHT,
            "Adult": tuple(name for name in EIGHT if name != "three labels"),  # it has two
        },
        (0, 1, 2),
        seeds_of=FIVE_SEEDS,
        studies=STUDIES,
        budget=6,
    ),
}
