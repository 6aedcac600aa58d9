"""Kinds: options of which a file chooses one of several classes, this library's or others, by name."""

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
    """Options of which a file chooses one of several classes: by its `kind`, or as "package.module:Class".

    A direct subclass that names its family, such as Partition, is what fields are annotated with. Whatever is derived
    from it and has a `kind` is one of the family, wherever it is defined, and needs to be named nowhere else: modules
    of the family's homes, and those of entry points in the group "pisa_ray." + family, are looked through for it.

    Attributes:
        kind: The name in a file.
        usual: A kind that is an example of the family.
        family: The key in the file.
        homes: Modules and packages of this library that define kinds of the family.
        kinds: The classes by kind, as far as they are imported.
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
        """See Options."""
        return f"a section such as {{kind: {cls.usual}}}"

    @classmethod
    def known(cls) -> dict[str, type[Any]]:
        """All of the family that are of this class, by kind."""
        for entry in look_through(cls.homes, f"pisa_ray.{cls.family}"):
            entry.load()
        return {kind: cls.kinds[kind] for kind in sorted(cls.kinds) if issubclass(cls.kinds[kind], cls)}

    @classmethod
    def chosen(cls, kind: Any, path: str) -> type[Any]:
        """The class of a kind.

        Args:
            kind: Its name, or "package.module:Class".
            path: What the user calls it: "algorithm.kind".

        Raises:
            ConfigError: There is none.
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
        """See Options; a kind alone stands for a section with nothing set."""
        if isinstance(values, str):
            values = {"kind": values}
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path} is {checks.shown(values)}, but it must be {cls.section()}.")
        if values.get("kind") is None:
            raise ConfigError(f"{path}.kind is missing: use {any_of([*cls.known()])}.")
        chosen = cls.chosen(values["kind"], f"{path}.kind")
        return chosen.read_fields({key: value for key, value in values.items() if key != "kind"}, path)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As a process takes it that has not imported the user's module, and may have to look for it where we did."""
        named = _OWN.get(type(self))
        return super().__reduce_ex__(protocol) if named is None else (_made_again, (named, self.__dict__))

    def written(self) -> Any:
        """See Options."""
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
    """Import all of this library that may have something of a family, and find the entry points that may have more."""
    for home in homes:
        package = importlib.import_module(home)
        for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
            importlib.import_module(f"{home}.{module.name}")
    return entry_points(group=group)
