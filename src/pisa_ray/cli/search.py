"""Reads the file of pisa-ray tune, and makes the training file of some values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from pisa_ray.cli.config import IN_BASE, check_places, checked, put, read
from pisa_ray.errors import ConfigError
from pisa_ray.fields import Count, Key, every_key
from pisa_ray.options import Options
from pisa_ray.trainer.config import Config


@dataclass(frozen=True, kw_only=True)
class Domain(Options):
    """The values that a setting may have: one of these.

    Attributes:
        choice: A list, one of which is drawn.
        grid: A list, each of which is tried.
        uniform: Two numbers, between which one is drawn.
        loguniform: The same, with an evenly drawn logarithm.
        whole: Two whole numbers; one from the first to the second is drawn.
    """

    choice: tuple[Any, ...] | None = None
    grid: tuple[Any, ...] | None = None
    uniform: tuple[float, ...] | None = None
    loguniform: tuple[float, ...] | None = None
    whole: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [(kind, values) for kind, values in vars(self).items() if values is not None]
        if len(given) != 1:
            raise ConfigError(
                f"Domain.{given[1][0] if given else 'choice'} is {'one too many' if given else 'missing'}, but there "
                "must be one of choice, grid, uniform, loguniform or whole, such as {loguniform: [1, 100]}."
            )
        kind, values = given[0]
        if kind in ("choice", "grid"):
            if not values:
                raise ConfigError(f"Domain.{kind} is [], but it must be a list of at least one value.")
        elif not (len(values) == 2 and values[0] < values[1] and (kind != "loguniform" or values[0] > 0)):
            raise ConfigError(
                f"Domain.{kind} is {list(values)}, but it must be two numbers, the smaller one first"
                f"{' and above 0' if kind == 'loguniform' else ''}."
            )

    @property
    def _given(self) -> tuple[str, tuple[Any, ...]]:
        """The kind, and its values."""
        return next((kind, values) for kind, values in vars(self).items() if values is not None)

    def build(self) -> Any:
        """Return the domain as an object of Tune."""
        from ray import tune

        kind, values = self._given
        if kind == "whole":
            return tune.randint(int(values[0]), int(values[1]) + 1)
        if kind in ("uniform", "loguniform"):
            return getattr(tune, kind)(*values)
        return (tune.choice if kind == "choice" else tune.grid_search)(list(values))

    def one(self) -> Any:
        """Return one of the values, always the same."""
        kind, values = self._given
        return int(values[0]) if kind == "whole" else values[0]


@dataclass(frozen=True, kw_only=True)
class Tuning(Options):
    """The whole file.

    Attributes:
        name: The name of the folder in runs/; None: that of the file.
        base: The settings of all trials: keys of a configuration file. workers is 0 by default here, so that a trial is
            one process.
        space: The settings that are searched for, by dotted key, each with a domain.
        samples: The number of trials; with `grid` it is multiplied by the number of its values.
        metric: The metric of held-out rows to choose by.
        mode: Whether a large or a small value is best.
        scheduler: Whether bad trials are stopped early, by the rule of that name; None: none is.
        searcher: The search algorithm; optuna needs the extra pisa-ray[tune].
        every: The rounds from one look at a trial to the next.
        concurrent: The number of trials at a time; None: as many as there is room for.
        seed: The seed of the draws.
        ray_address: The address of the cluster, as in ray.init.
    """

    elsewhere: ClassVar[Mapping[str, str]] = IN_BASE

    name: str | None = None
    base: dict[str, Any]
    space: dict[str, Domain]
    samples: Count = 10
    metric: str = "validation_accuracy"
    mode: Literal["max", "min"] = "max"
    scheduler: Literal["asha"] | None = "asha"
    searcher: Literal["random", "optuna"] = "random"
    every: Count = 20
    concurrent: Count | None = None
    seed: Annotated[int, Ge(0)] = 0
    ray_address: Annotated[str | None, Key("ray.address")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.space:
            raise ConfigError("space is empty, but there is nothing to search then: add at least one setting.")


@dataclass(frozen=True)
class Search:
    """A file of pisa-ray tune and the folder of its paths.

    Attributes:
        file: The content of the file.
        folder: The folder that data paths are relative to.
    """

    file: Tuning
    folder: Path

    @classmethod
    def load(cls, path: Path, settings: list[str] | None = None) -> Search:
        """Read a file; overrides are as in `pisa-ray train`.

        Raises:
            ConfigError: If something is wrong; it names the first, in one sentence.
        """
        return cls(Tuning.read(read(path, settings), ""), path.resolve().parent)

    def first(self) -> dict[str, Any]:
        """Return one value of each setting, always the same."""
        return {key: domain.one() for key, domain in self.file.space.items()}

    def look(self) -> None:
        """Check the keys and values of one training file, and the files that it names, before Tune is imported.

        Raises:
            ConfigError: If something is wrong in it; it names the first.
        """
        with self._named():
            check_places(checked(self._values(self.first()), self.folder))

    def config(self, chosen: Mapping[str, Any]) -> Config:
        """Return the configuration with some values chosen.

        Raises:
            ConfigError: If something is wrong in it; it names the first.
        """
        from pisa_ray.trainer.start import settled

        with self._named():
            return settled(checked(self._values(chosen), self.folder))

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Give keys of the training file their places in the file of the search."""
        try:
            yield
        except ConfigError as error:
            key = str(error).split(maxsplit=1)[0]
            if key.startswith(("space.", "base.")):
                raise
            place = "space" if any(key == one or key.startswith(f"{one}.") for one in self.file.space) else "base"
            known = key.partition(".")[0] in {one.partition(".")[0] for one in (*every_key(Config), *self.file.base)}
            raise ConfigError(f"{place}.{error}" if known else str(error)) from error

    def _values(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        values = {"workers": 0, **deepcopy(self.file.base)}
        for key, value in chosen.items():
            put(values, key, value, f"space.{key}")
        return values
