"""The cells of a comparison, each of which is a run, and their checks before the first one starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pisa_ray.cli.compare.work import in_proportion, rounds_at_equal_work
from pisa_ray.cli.comparison import Spec, slug
from pisa_ray.data import hold_out
from pisa_ray.errors import ConfigError, PisaError
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.data import Data, Opened
from pisa_ray.trainer.prepare import fingerprints, prepare
from pisa_ray.trainer.resume import check_data, fixed
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.start import method_of, settled

#: Options that a resume of a train file may change, but not one of a comparison, as its table shows them.
_SHOWN = ("rounds", "evaluate_every", "stop")


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of a comparison.

    Attributes:
        algorithm: The name of its row.
        partition: The name of its partition.
        seed: Its seed.
        config: The configuration; after `check` its rounds are those of equal work.
        path: Its run directory.
    """

    algorithm: str
    partition: str
    seed: int
    config: Config
    path: Path

    def __str__(self) -> str:
        return f"{self.algorithm}, {self.partition}, seed {self.seed}"

    @property
    def alone(self) -> bool:
        """Whether the cell runs in one process."""
        return self.config.scaling.most == 0


def plan(spec: Spec, out: Path) -> list[Cell]:
    """Return all cells, seed by seed, each with a configuration whose keys and values are checked.

    Raises:
        ConfigError: If a configuration is wrong; it names the row.
    """
    file = spec.file
    for partition in file.partitions:
        spec.config(None, partition, file.seeds[0])  # so that errors of the base name the base
    return [
        Cell(
            algorithm,
            partition,
            seed,
            spec.config(algorithm, partition, seed),
            out / "runs" / slug(algorithm) / slug(partition) / f"seed-{seed}",
        )
        for seed in file.seeds
        for partition in file.partitions
        for algorithm in file.algorithms
    ]


def check(spec: Spec, cells: list[Cell]) -> list[Cell]:
    """Open the data, cut every partition, and try every row's model.

    Returns:
        The cells, each with the rounds of equal work.

    Raises:
        ConfigError: If a cell would fail for a reason that can be known now, or does not measure the score.
    """
    tried, fitted = set[tuple[str, str]](), list[Cell]()
    for cell in cells:
        with spec.naming(cell.algorithm, cell.partition):
            data = opened(cell.config.data, keep=False)
            base = spec.config(None, cell.partition, cell.seed)
            fitted.append(_fit(spec, cell, base, _shards(cell.config, data)))
            if (cell.algorithm, cell.partition) not in tried:
                tried.add((cell.algorithm, cell.partition))
                _try(spec, fitted[-1].config, data)
    return fitted


def _shards(config: Config, data: Opened) -> list[int]:
    """Return the number of rows of each shard, without those that are held out."""
    cut = config.partition.split(data.train, config.seed)
    if data.held_out_share is not None:
        cut, _ = hold_out(cut, data.held_out_share, config.seed)
    return [len(rows) for rows in cut]


def _fit(spec: Spec, cell: Cell, base: Config, shards: list[int]) -> Cell:
    config, every = cell.config, cell.config.checkpoint_every
    rounds = rounds_at_equal_work(spec.file.equal, base, config, method_of(config), shards)
    changes: dict[str, Any] = {"rounds": rounds}
    if not spec.explicit("evaluate_every", cell.algorithm):
        changes["evaluate_every"] = in_proportion(config.evaluate_every, base.rounds, rounds)
    if every is not None and not spec.explicit("checkpoint", cell.algorithm):
        changes["checkpoint_every"] = in_proportion(every, base.rounds, rounds)
    return replace(cell, config=settled(config.changed(**changes)))


def _try(spec: Spec, config: Config, data: Opened) -> None:
    prepared = prepare(config, data)
    for key, name in (("score", spec.file.score), ("checkpoint.best_by", config.run.best_by)):
        if name is not None and name not in prepared.metrics:
            known = ", ".join(prepared.metrics)
            raise ConfigError(f"{key} is {name!r}, but the rows do not measure it: use one of {known}.")


def check_same(cells: list[Cell]) -> None:
    """Refuse runs in the cells' folders that are not runs of these cells.

    Raises:
        ConfigError: If a setting or the data differ; it names the first setting.
    """
    for cell in cells:
        directory = RunDirectory(cell.path)
        if not directory.has_begun():
            continue
        before, now = _fixed(directory.config()), _fixed(cell.config.written())
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                raise ConfigError(
                    f"{cell} was started with {key} = {before.get(key)!r}, not {now.get(key)!r}: resume with the same "
                    "value, give the row another name, or use another --out."
                )
        try:
            known = directory.read("partition.json")
        except PisaError as error:
            raise ConfigError(f"{cell} cannot be resumed ({error}): remove {directory.path} to run it anew.") from error
        now = fingerprints(opened(cell.config.data, keep=False))
        check_data(known.get("data"), now, f"{cell} needs those data, wherever they lie; or use another --out.")


def _fixed(config: Mapping[str, Any]) -> dict[str, Any]:
    return fixed(config) | {key: config.get(key) for key in _SHOWN}


@lru_cache(maxsize=1)
def opened(data: Data, *, keep: bool) -> Opened:
    """Open data, and keep them open until others are opened.

    Args:
        data: The data.
        keep: Whether rows are decoded once and stay in memory, for the cells that this process runs.
    """
    return data.open(keep=keep)
