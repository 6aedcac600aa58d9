"""Functions that have a name in a file: this library's own, and those that installed packages give by entry points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pisa_ray.errors import ConfigError
from pisa_ray.fields import any_of
from pisa_ray.kinds import look_through
from pisa_ray.named import imported

F = TypeVar("F", bound=Callable[..., Any])


class Registry:
    """The functions of one key of the file, by name, as Kind has classes.

    An entry point in the group "pisa_ray." + key gives a function the entry point's name, and is imported when it is
    chosen; no such name takes the place of one of this library's.

    Attributes:
        key: The key, such as "loss".
        homes: Modules and packages of this library that add functions to it, beside the one where it is defined.
    """

    def __init__(self, key: str, homes: tuple[str, ...] = ()) -> None:
        self.key, self.homes = key, homes
        self._ours: dict[str, Callable[..., Any]] = {}

    def add(self, function: F, name: str = "") -> F:
        """Give a function a name, its own if no other is said; to be used as a decorator, too."""
        self._ours[name or function.__name__] = function
        return function

    def known(self) -> dict[str, Callable[..., Any] | str]:
        """This library's functions, and the others as "package.module:function", by name."""
        entries = look_through(self.homes, f"pisa_ray.{self.key}")
        return self._ours | {entry.name: entry.value for entry in entries if entry.name not in self._ours}

    def chosen(self, name: str, path: str) -> Callable[..., Any]:
        """The function of a name, or the one that "package.module:function" names.

        Args:
            name: The name.
            path: What the user calls it: "model.kind".

        Raises:
            ConfigError: There is none, or it cannot be imported.
        """
        if ":" in name:
            return imported(name, path)
        known = self.known()
        if name not in known:
            raise ConfigError(f"{path} is {name!r}, but it must be {any_of([*known])}, or 'package.module:function'.")
        found = known[name]
        return imported(found, f"the entry point {name} in pisa_ray.{self.key}") if isinstance(found, str) else found
