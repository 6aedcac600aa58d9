"""Functions that a file chooses by name: those of this library, and those of installed packages' entry points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pisa_ray.errors import ConfigError
from pisa_ray.fields import any_of
from pisa_ray.kinds import look_through
from pisa_ray.named import imported

F = TypeVar("F", bound=Callable[..., Any])


class Registry:
    """The functions that a file can choose for one key, by name, as a Kind is a class that it chooses.

    An entry point in the group "pisa_ray." + key adds a function under its own name, which is imported when it is
    chosen. It cannot replace a function of this library.

    Attributes:
        key: The key, such as "loss".
        homes: Modules and packages of this library that add functions, beside the module in which it is defined.
    """

    def __init__(self, key: str, homes: tuple[str, ...] = ()) -> None:
        self.key, self.homes = key, homes
        self._ours: dict[str, Callable[..., Any]] = {}

    def add(self, function: F, name: str = "") -> F:
        """Add a function, under its own name unless another is given. It is returned, so this can be a decorator."""
        self._ours[name or function.__name__] = function
        return function

    def known(self) -> dict[str, Callable[..., Any] | str]:
        """Return the functions of this library, and the others as "package.module:function", by name."""
        entries = look_through(self.homes, f"pisa_ray.{self.key}")
        return self._ours | {entry.name: entry.value for entry in entries if entry.name not in self._ours}

    def chosen(self, name: str, path: str) -> Callable[..., Any]:
        """Return the function with a name, or the one that "package.module:function" names.

        Args:
            name: The name.
            path: The user's name for the setting: "model.kind".

        Raises:
            ConfigError: If there is no such function, or it cannot be imported.
        """
        if ":" in name:
            return imported(name, path)
        known = self.known()
        if name not in known:
            raise ConfigError(f"{path} is {name!r}, but it must be {any_of([*known])}, or 'package.module:function'.")
        found = known[name]
        return imported(found, f"the entry point {name} in pisa_ray.{self.key}") if isinstance(found, str) else found
