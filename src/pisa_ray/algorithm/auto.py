"""Numbers that are left to the automatic start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt, Le

from pisa_ray import checks
from pisa_ray.options import Options


@dataclass(frozen=True)
class Auto(Options):
    """A number that the automatic start sets before round 1; in a file it is "auto" or {hint: 3}.

    Attributes:
        hint: A first guess, which is used if the automatic start finds it sound, else the nearest sound value; None:
            there is none.
    """

    hint: Annotated[float, Gt(0), Le(1e30)] | None = None

    @classmethod
    def section(cls) -> str:
        """See Options."""
        return "auto or {hint: a number}"

    def written(self) -> Any:
        """See Options."""
        return "auto" if self.hint is None else {"hint": self.hint}


#: The default of every sigma and rho.
AUTO = Auto()


def _automatic(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return Auto.read(value, name)
    return value if isinstance(value, Auto) else AUTO if isinstance(value, str) and value == "auto" else checks.NOT


#: The type of an option that the automatic start can set.
Automatic = Annotated[Auto, checks.Rule("Auto()", _automatic)]


def number(value: float | Auto) -> float:
    """Return a number that the automatic start must have set by now.

    Raises:
        ValueError: If it is still to be set.
    """
    if isinstance(value, Auto):
        raise ValueError("sigma or rho is still to be set by the automatic start: give a number, or let a trainer run")
    return value
