"""Options: dataclasses whose annotations say what each field may be, for Python and for the configuration file alike.

A field is declared once, as in

    k0: Annotated[int, Ge(1)] = 10

and a line of the docstring. Its check, what a file may say, and what is written to config.yaml are derived from that.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from importlib.metadata import EntryPoints, entry_points
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from pisa_ray import checks
from pisa_ray.errors import ConfigError
from pisa_ray.named import Named, imported

Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Decay = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(1)]


class Key(str):
    """In an annotation: the field's key in the file, where that is no name of Python's, such as "lambda"."""

    __slots__ = ()


class Options:
    """A dataclass that checks its fields when it is made, and can be read from a file and written to one."""

    #: Keys of its section that are no fields.
    beside: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        cls: Any = type(self)
        for name, rule in rules(cls).items():
            value = rule(f"{cls.__name__}.{name}", getattr(self, name))
            object.__setattr__(self, name, value)

    @classmethod
    def section(cls) -> str:
        """What stands for one in a file, as it goes on after "must be"."""
        own: Any = cls
        *names, last = keys(own)
        return f"a section with {', '.join(names)} and {last}" if names else f"a section with {last}"

    @classmethod
    def spelled(cls, values: dict[str, Any], path: str) -> dict[str, Any]:
        """What a file says in the words of the fields, where it has others; the values as they are, unless overridden.

        Args:
            values: By key.
            path: Where in the file they are.
        """
        return values

    @classmethod
    def read(cls, values: Any, path: str) -> Any:
        """Make one of what a file says, as `read_fields` does."""
        return cls.read_fields(values, path)

    @classmethod
    def read_fields(cls, values: Any, path: str) -> Self:
        """Make one of what a file says.

        Args:
            values: A mapping of keys to values.
            path: Where in the file it is, for messages: "sigma_schedule".

        Raises:
            ConfigError: A key is unknown, missing or not what it must be.
        """
        own: Any = cls
        known, hints = keys(own), annotated(own)
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path} is {checks.shown(values)}, but it must be {cls.section()}.")
        values = cls.spelled(dict(values), path)
        check_known(values, [*known, *cls.beside], path)
        missing = [key for key, name in known.items() if key not in values and _needed(_fields(cls)[name])]
        if missing:
            example = next((one.example for one in members(hints[known[missing[0]]]) if hasattr(one, "example")), "")
            remedy = f"add it, such as {missing[0]}: {example}" if example else "add it"
            raise ConfigError(f"{under(path, missing[0])} is missing and has no default: {remedy}.")
        given = {known[key]: read(hints[known[key]], value, under(path, key)) for key, value in values.items()}
        try:
            return cls(**given)
        except ConfigError as error:
            raise ConfigError(str(error).replace(f"{cls.__name__}.", under(path, ""))) from error

    def written(self) -> Any:
        """What a file says to have it: all fields by key."""
        cls: Any = type(self)
        return {key: written(getattr(self, name)) for key, name in keys(cls).items()}


def under(path: str, key: str) -> str:
    """The path of a key in a section; the whole file has the path ""."""
    return f"{path}.{key}" if path else key


def check_known(values: Iterable[Any], keys: Iterable[str], path: str) -> None:
    """Refuse keys that there are not.

    Raises:
        ConfigError: Names the first, and the nearest that there is.
    """
    known = list(keys)
    for key in values:
        if not isinstance(key, str):
            where = f" in {path}" if path else ""
            raise ConfigError(
                f"the key {checks.shown(key)}{where} is no text: write it in quotes if it is meant, or leave it out."
            )
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            remedy = f"the nearest one is {near[0]}" if near else f"use {any_of(known)}"
            other = " Other arguments of the optimizer go to options." if "options" in known else ""
            raise ConfigError(f"{under(path, key)} is not a setting: {remedy}.{other}")


def any_of(names: Sequence[str]) -> str:
    """Names in a sentence: "one of a, b"."""
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}" if names else "none"


@functools.cache
def annotated(cls: Any) -> dict[str, Any]:
    """The annotation of each field of a dataclass, by name."""
    names = {field.name for field in fields(cls) if field.init}
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):  # of fields alone: what else is annotated may need torch
        own = {name: text for name, text in vars(base).get("__annotations__", {}).items() if name in names}
        where = types.SimpleNamespace(__annotations__=own)
        found |= get_type_hints(where, _names_of(base), include_extras=True)
    return {field.name: found[field.name] for field in fields(cls) if field.init}


def _names_of(cls: type) -> dict[str, Any]:
    """The names that a class's module knows, also where that is none that could be imported."""
    if cls.__module__ in sys.modules:
        return vars(sys.modules[cls.__module__])
    return next((part.__globals__ for part in vars(cls).values() if hasattr(part, "__globals__")), {})


@functools.cache
def rules(cls: Any) -> dict[str, checks.Rule]:
    """What each field of a dataclass must be, by name."""
    return {name: rule(annotation) for name, annotation in annotated(cls).items()}


@functools.cache
def keys(cls: Any) -> dict[str, str]:
    """The names of the fields by their keys in the file."""
    found = {}
    for name, annotation in annotated(cls).items():
        metadata = getattr(annotation, "__metadata__", ())
        found[next((str(one) for one in metadata if isinstance(one, Key)), name)] = name
    return found


def _fields(cls: Any) -> dict[str, Field[Any]]:
    return {field.name: field for field in fields(cls)}


def _needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def members(annotation: Any) -> tuple[Any, ...]:
    """What an annotation allows: the members of a union, without what is said about them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in members(part))
    return (annotation,)


def rule(annotation: Any, *, in_file: bool = False) -> checks.Rule:
    """The rule that an annotation is, which for options speaks of sections where it is of a file."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    found: checks.Rule | None = _RULES.get(annotation)
    if origin is Annotated:
        found = next((one for one in arguments[1:] if isinstance(one, checks.Rule)), None)
        found = found or _bounded(arguments[0], arguments[1:], in_file=in_file)
        sections = [member.section() for member in members(annotation) if in_file and hasattr(member, "section")]
        if sections:
            found = checks.Rule(" or ".join(sections), found.take)
    elif origin in (Union, types.UnionType):
        found = functools.reduce(lambda a, b: a | b, (rule(member, in_file=in_file) for member in arguments))
    elif origin is Literal:
        found = checks.choice(*arguments)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        found = checks.mapping(rule(arguments[1]), "a dictionary")
    elif origin is tuple:
        found = checks.sequence(rule(arguments[0]), "a list")
    elif origin is Callable:
        found = checks.function
    elif found is None and isinstance(annotation, type):
        section = getattr(annotation, "section", None) if in_file else None
        found = checks.instance(section() if section else getattr(annotation, "text", annotation.__name__), annotation)
    if found is None:
        raise TypeError(f"no rule for {annotation}")
    return found


_RULES: dict[Any, checks.Rule] = {
    int: checks.whole(),
    float: checks.number(),
    bool: checks.flag,
    str: checks.text,
    None: checks.nothing,
    type(None): checks.nothing,
    Any: checks.within,
}


def _bounded(annotation: Any, metadata: Iterable[Any], *, in_file: bool) -> checks.Rule:
    """A number between bounds."""
    bounds: dict[str, Any] = {}
    for one in metadata:
        match one:
            case Gt():
                bounds["above"] = one.gt
            case Ge():
                bounds["least"] = one.ge
            case Lt():
                bounds["below"] = one.lt
            case Le():
                bounds["most"] = one.le
    if not bounds:
        return rule(annotation, in_file=in_file)
    return checks.whole(**bounds) if annotation is int else checks.number(**bounds)


def read(annotation: Any, value: Any, path: str) -> Any:
    """A value of a file as a field with some annotation takes it: sections become options, what else there is stays.

    Raises:
        ConfigError: It is not what it must be.
    """
    for member in members(annotation):
        origin = get_origin(member)
        if isinstance(member, type) and issubclass(member, Options):
            if isinstance(value, Mapping) or (isinstance(value, str) and hasattr(member, "kinds")):
                return member.read(value, path)
        elif isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
            of = get_args(member)[1]
            return {key: read(of, item, f"{path}.{key}") for key, item in value.items()}
    return rule(annotation, in_file=True)(path, value)


#: Longer lists are named only.
LISTED = 100


def written(value: Any) -> Any:
    """A field's value as a file says it; what no file can say, such as a data set in memory, by its class or name."""
    value = checks.plain(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "written") and not isinstance(value, type):
        return value.written()
    if isinstance(value, Mapping):
        return {str(key): written(item) for key, item in value.items()}
    if hasattr(value, "tolist") and value.ndim == 1:  # an array or a tensor
        value = value.tolist() if len(value) <= LISTED else list(value)
    if isinstance(value, list | tuple) and len(value) <= LISTED:
        return [written(item) for item in value]
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"


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

    beside: ClassVar[tuple[str, ...]] = ("kind",)
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
