"""The file of pisa-ray tune: what is searched for, and the training file of some values."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pisa_ray.cli.config import Config, RaySection, checked, note_planned_rounds, read, read_sections
from pisa_ray.cli.config_errors import sentence, shown
from pisa_ray.cli.config_section import Section
from pisa_ray.errors import ConfigError

_RANGE = Annotated[list[float], Field(min_length=2, max_length=2)]


class DomainSection(Section):
    """The values that a setting may have: one of these."""

    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    grid: Annotated[list[Any], Field(min_length=1)] | None = None
    uniform: _RANGE | None = None
    loguniform: _RANGE | None = None
    whole: _RANGE | None = None

    @model_validator(mode="after")
    def _one(self) -> DomainSection:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                "must be one of choice, grid, uniform, loguniform or whole, such as {loguniform: [1, 100]}"
            )
        for name in ("uniform", "loguniform", "whole"):
            span = getattr(self, name)
            if span is not None and not (span[0] < span[1] and (name != "loguniform" or span[0] > 0)):
                raise ValueError(f"must be a {name} of two numbers, the smaller one first")
        return self

    def build(self) -> Any:
        """As Tune takes it."""
        from ray import tune

        if self.choice is not None:
            return tune.choice(self.choice)
        if self.grid is not None:
            return tune.grid_search(self.grid)
        if self.whole is not None:
            return tune.randint(int(self.whole[0]), int(self.whole[1]) + 1)
        return tune.uniform(*self.uniform) if self.uniform is not None else tune.loguniform(*self.loguniform or (1, 2))

    def one(self) -> Any:
        """One of the values, always the same."""
        values = self.choice or self.grid
        if values is not None:
            return values[0]
        if self.whole is not None:
            return int(self.whole[0])
        return (self.uniform or self.loguniform or [1.0])[0]


class TuneSection(Section):
    """The whole file."""

    name: str | None = None
    base: dict[str, Any]
    space: Annotated[dict[str, DomainSection], Field(min_length=1)]
    samples: Annotated[int, Field(ge=1)] = 10
    metric: str = "validation_accuracy"
    mode: Literal["max", "min"] = "max"
    scheduler: Literal["asha"] | None = "asha"
    searcher: Literal["random", "optuna"] = "random"
    every: Annotated[int, Field(ge=1)] = 20
    concurrent: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    ray: RaySection = Field(default_factory=RaySection)


@dataclass(frozen=True)
class Search:
    """A file that has been looked at.

    Attributes:
        file: What it says.
        folder: That data paths are relative to.
    """

    file: TuneSection
    folder: Path

    @classmethod
    def load(cls, path: Path, settings: list[str] | None = None) -> Search:
        """Read a file; overrides are as in `pisa-ray train`.

        Raises:
            ConfigError: The first thing that is wrong, in one sentence.
        """
        values = read(path, settings)
        try:
            file = TuneSection.model_validate(values)
        except ValidationError as error:
            raise ConfigError(sentence(error, values, TuneSection)) from error
        return cls(file, path.resolve().parent)

    def first(self) -> dict[str, Any]:
        """One value of each setting, always the same."""
        return {key: domain.one() for key, domain in self.file.space.items()}

    def look(self) -> None:
        """Look at keys and values of one of the training files, and for files that it names, before Tune is imported.

        Raises:
            ConfigError: The first thing that is wrong in it.
        """
        config = read_sections(self._values(self.first()), self.folder)
        config.data.check()
        config.model.check()

    def config(self, chosen: Mapping[str, Any]) -> Config:
        """The training file with some values chosen.

        Raises:
            ConfigError: The first thing that is wrong in it.
        """
        config = checked(self._values(chosen), self.folder)
        note_planned_rounds(config)
        return config

    def _values(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        values = {"workers": 0, **deepcopy(self.file.base)}
        for key, value in chosen.items():
            *parents, last = key.split(".")
            section = values
            for parent in parents:
                section = section.setdefault(parent, {})
                if not isinstance(section, dict):
                    raise ConfigError(f"space.{key}: {parent} is {shown(section)} and has no keys of its own.")
            section[last] = value
        return values
