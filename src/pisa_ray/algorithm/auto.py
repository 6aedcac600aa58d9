"""Numbers that are left to the automatic start."""

from __future__ import annotations

from dataclasses import dataclass

from pisa_ray import checks


@dataclass(frozen=True)
class Auto:
    """Stands for a number that the automatic start sets before round 1.

    Attributes:
        hint: A first guess, taken as it is where the start finds it sound, else the nearest value that is; None: none.
    """

    hint: float | None = None

    def __post_init__(self) -> None:
        checks.settle(self, hint=checks.number(above=0, most=1e30) | checks.nothing)


#: The default of every sigma and rho.
AUTO = Auto()

#: What may stand where a number is found by the automatic start.
AUTOMATIC = checks.instance("Auto()", Auto)


def number(value: float | Auto) -> float:
    """A setting that must have been set by now.

    Raises:
        ValueError: It is still to be set.
    """
    if isinstance(value, Auto):
        raise ValueError("sigma or rho is still to be set by the automatic start: give a number, or let a trainer run")
    return value
