"""Kinds: options whose class a file chooses by name, among those of this library and others."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from importlib.metadata import EntryPoints, entry_points
from typing import Any, ClassVar

from pisa_ray import checks
from pisa_ray.errors import ConfigError
from pisa_ray.fields import any_of
from pisa_ray.named import Named, imported
from pisa_ray.options import Options


class Kind(Options):
    """Options whose class a file chooses: by its `kind`, or as "package.module:Class".

    Fields are annotated with a direct subclass that names its family, such as Partition. Every class that is derived
    from it and has a `kind` is one of the family, wherever it is defined. It is named nowhere else: the modules of the
    family's homes, and those of entry points in the group "pisa_ray." + family, are searched for it.

    Attributes:
        kind: The name in a file.
        usual: A kind that serves as an example of the family.
        family: The key in the file.
        homes: Modules and packages of this library that define kinds of the family.
        kinds: The classes that have been imported, by kind.
    """

    beside: ClassVar[Mapping[str, Any]] = {"kind": str}
    kind: ClassVar[str]
    usual: ClassVar[str]
    family: ClassVar[str]
    homes: ClassVar[tuple[str, ...]]
    kinds: ClassVar[dict[str, type[Any]]]

    def __init_subclass__(cls, family: str = "", homes: tuple[str, ...] = (), **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if family:
            cls.family, cls.homes, cls.kinds = family, homes, {}
        elif "kind" in vars(cls):
            cls.kinds[cls.kind] = cls

    @classmethod
    def section(cls) -> str:
        """Override `Options.section` with an example of a kind."""
        return f"a section such as {{kind: {cls.usual}}}"

    @classmethod
    def known(cls) -> dict[str, type[Any]]:
        """Import the whole family, and return those that derive from this class, by kind."""
        for entry in look_through(cls.homes, f"pisa_ray.{cls.family}"):
            entry.load()
        return {kind: cls.kinds[kind] for kind in sorted(cls.kinds) if issubclass(cls.kinds[kind], cls)}

    @classmethod
    def chosen(cls, kind: Any, path: str) -> type[Any]:
        """Return the class of a kind.

        Args:
            kind: The name of the kind, or "package.module:Class".
            path: The user's name for the setting: "algorithm.kind".

        Raises:
            ConfigError: If there is no such class.
        """
        if isinstance(kind, str) and ":" in kind:
            named = imported(kind, path)
            found = named.find()
            if isinstance(found, type) and issubclass(found, cls):
                _OWN[found] = named
                return found
            raise ConfigError(f"{path} is {kind!r}, but that is no class derived from pisa_ray's {cls.__name__}.")
        known = cls.known()
        if kind not in known:
            raise ConfigError(
                f"{path} is {checks.shown(kind)}, but it must be {any_of([*known])}, or a class of yours as "
                "package.module:Class."
            )
        return known[kind]

    @classmethod
    def read(cls, values: Any, path: str) -> Any:
        """Override `Options.read`: the name of a kind stands for a section that sets nothing else."""
        if isinstance(values, str):
            values = {"kind": values}
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path} is {checks.shown(values)}, but it must be {cls.section()}.")
        if values.get("kind") is None:
            raise ConfigError(f"{path}.kind is missing: use {any_of([*cls.known()])}.")
        chosen = cls.chosen(values["kind"], f"{path}.kind")
        return chosen.read_fields({key: value for key, value in values.items() if key != "kind"}, path)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Let another process, which may not have imported the user's module, find it where this one did."""
        named = _OWN.get(type(self))
        return super().__reduce_ex__(protocol) if named is None else (_made_again, (named, self.__dict__))

    def written(self) -> Any:
        """Override `Options.written`: add the kind."""
        mine = "kind" in vars(type(self))
        kind = self.kind if mine else f"{type(self).__module__}:{type(self).__qualname__}"
        return {"kind": kind, **super().written()}


#: The classes that were found as "package.module:Class".
_OWN: dict[type, Named] = {}


def _made_again(named: Named, fields: Mapping[str, Any]) -> Any:
    found = named.find()
    _OWN[found] = named
    made = object.__new__(found)
    made.__dict__.update(fields)
    return made


@functools.cache
def look_through(homes: tuple[str, ...], group: str) -> EntryPoints:
    """Import all modules of this library that may add to a family, and return the entry points that may add more."""
    for home in homes:
        package = importlib.import_module(home)
        for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
            importlib.import_module(f"{home}.{module.name}")
    return entry_points(group=group)
