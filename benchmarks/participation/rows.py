"""What is compared: cells (data set, partition, how many of how many shards report), methods and their settings."""

from __future__ import annotations

from dataclasses import dataclass

from studies.rows import FEW_REPORT, PARTITIONS, Row, row

#: The method with one setting for all cells; every other chooses from as many settings, of the first in its list.
OURS = "SISA-D"


def sigma_rule(reports: int) -> float:
    """SISA-D's sigma in a run in which every shard reports so often; rho is nine times as large.

    sigma = 0.15 reports, so 30 for 200. A report moves w by about alpha_i / sigma in each coordinate, so reports /
    sigma is how far w can go in the run, whoever reports when. Made with a look at held-out rows of MNIST and CIFAR-10,
    one label per shard, on the seed of the search; tried for 40 to 200 reports.
    """
    return 0.15 * reports


@dataclass(frozen=True)
class Cell:
    """Who has which rows and how many report.

    Attributes:
        partition: Its name.
        shards: m.
        reporting: k, in every round after the first.
        batch: Rows of a mini-batch; None: the data set's.
    """

    partition: str
    shards: int
    reporting: int
    batch: int | None = None

    @property
    def name(self) -> str:
        return f"{self.reporting} of {self.shards}"

    @property
    def partitions(self) -> dict[str, Row]:
        return {self.partition: PARTITIONS[self.partition](self.shards)}

    def ours(self, base: Row) -> Row:
        """SISA-D's setting."""
        sigma = round(sigma_rule(self.changes(base)["rounds"]), 1)
        return row("sisa_d", sigma=sigma, rho=9 * sigma)

    def changes(self, base: Row) -> Row:
        """What the cell changes of a data set's training file, whose rounds are for ten shards that all report.

        Its rounds are those of a run in which all shards report; the comparison makes them more where fewer do, so that
        a shard's reports stay as many.
        """
        batch = self.batch or base["batch_size"]
        rounds = round(base["rounds"] * 10 * base["batch_size"] / (self.shards * batch))
        return {"batch_size": batch, "rounds": rounds, "participation": self.reporting / self.shards}


def of_ten(partition: str, *reporting: int) -> tuple[Cell, ...]:
    return tuple(Cell(partition, 10, k) for k in reporting)


#: Where settings are searched for, unless every cell has a search of its own.
TUNED = Cell("one label", 10, 3)
WIDE = Cell("one label", 100, 5, batch=16)

#: Test accuracies that are raced for.
TARGETS = {"MNIST": 0.95, "digits": 0.9}

#: About how many evaluations a run has, and where there is a race; one costs what the gradients of 5,000 rows do.
EVALUATIONS, OFTEN = 12, 40


def raced(dataset: str, partition: str, reporting: int) -> bool:
    """Whether the first round with the data set's target is asked for: where one or two one-sided shards report."""
    return dataset in TARGETS and partition == "one label" and reporting <= 2


@dataclass(frozen=True)
class Preset:
    """What is run.

    Attributes:
        cells: By data set.
        methods: Rivals of SISA-D.
        seeds: Of the table.
        search_seeds: Of the search.
        budget: Settings that every rival has to choose from, of the first in its list.
        every_cell: Whether rivals choose anew in every cell, instead of once for a data set, where 3 of 10 report.
    """

    cells: dict[str, tuple[Cell, ...]]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    search_seeds: tuple[int, ...] = (100,)
    budget: int = 3
    every_cell: bool = False

    @property
    def candidates(self) -> dict[str, list[Row]]:
        return {name: FEW_REPORT[name][: self.budget] for name in self.methods}


#: Without what is meant for the matrices of transformers.
SHORT = tuple(name for name in FEW_REPORT if name != "NSISA")

PRESETS = {
    "small": Preset(
        {"digits": (*of_ten("one label", 10, 3, 1), Cell("one label", 20, 2, batch=16))},
        ("sync Adam", "Adam, remembered", "FedAvg", "MIFA"),
        (0,),
        budget=2,
    ),
    "ninety": Preset(
        {
            "MNIST": (*of_ten("one label", 10, 5, 3, 2, 1), WIDE),
            "CIFAR-10": (*of_ten("one label", 10, 5, 3, 1), WIDE),
        },
        SHORT,
        (0, 1),
    ),
    "full": Preset(
        {
            name: (*of_ten("one label", 10, 5, 3, 2, 1), WIDE, *of_ten("Dirichlet(0.1)", 10, 5, 3, 1))
            for name in ("MNIST", "Fashion-MNIST", "CIFAR-10")
        },
        tuple(FEW_REPORT),
        (0, 1, 2),
        budget=6,
        every_cell=True,
    ),
}
