"""Options: dataclasses whose annotations give each field's type and range, in Python and in the configuration file.

A field is declared once, as in

    k0: Annotated[int, Ge(1)] = 10

and a line of the docstring. Its check, its form in a file and what is written to config.yaml are derived from that.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, ClassVar, Self, get_args, get_origin

from pisa_ray import checks
from pisa_ray.errors import ConfigError
from pisa_ray.fields import (
    all_of,
    annotated,
    any_of,
    every_key,
    fields_of,
    inline,
    key_of,
    keys,
    members,
    needed,
    rule,
    rules,
    under,
)
from pisa_ray.named import name_of


class Options:
    """The base class of dataclasses that check their fields, and can be read from a file and written to one."""

    #: What to use in place of names that are not arguments, such as those of earlier versions.
    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({})

    #: The keys of a file for what has another name in Python, or stands in a section.
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType({})

    #: Keys of the section that are not fields, each with the annotation of its value.
    beside: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Refuse arguments that do not exist, with the nearest one.

        Raises:
            ConfigError: If there is one.
        """
        known = [name for name, field in fields_of(cls).items() if field.init] if is_dataclass(cls) else [*named]
        for name in named:
            if name not in known:
                near = cls.renamed.get(name) or next(iter(difflib.get_close_matches(name, known, n=1)), None)
                remedy = f"use {near}" if near else f"there are {', '.join(known)}" if known else "it takes none"
                raise ConfigError(f"{name} is no argument of {cls.__name__}: {remedy}.")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        cls: Any = type(self)
        for name, must in rules(cls).items():
            value = must(f"{cls.prefix()}{name}", getattr(self, name))
            object.__setattr__(self, name, value)

    @classmethod
    def prefix(cls) -> str:
        """Return the prefix of a field's name in messages."""
        return f"{cls.__name__}."

    @classmethod
    def section(cls) -> str:
        """Return a description of the section in a file, as a sentence goes on after "must be"."""
        own: Any = cls
        return f"a section with {all_of([*keys(own), *cls.beside])}"

    @classmethod
    def spelled(cls, values: dict[str, Any], path: str) -> dict[str, Any]:
        """Return a section's values in the terms of the fields; a class overrides this if its section has other terms.

        Args:
            values: The values by key.
            path: The path of the section in the file.
        """
        return values

    @classmethod
    def read(cls, values: Any, path: str) -> Any:
        """Make options of a value in a file, as `read_fields` does."""
        return cls.read_fields(values, path)

    @classmethod
    def read_fields(cls, values: Any, path: str) -> Self:
        """Make options of a section of a file.

        Args:
            values: A mapping of keys to values.
            path: The path of the section in the file, for messages: "sigma_schedule".

        Raises:
            ConfigError: If a key is unknown, missing or not what it must be.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path} is {checks.shown(values)}, but it must be {cls.section()}.")
        own: Any = cls
        check_known(values, every_key(own), path, cls.elsewhere)
        return cls._read_flat(_flat(values, every_key(own), path), path)

    @classmethod
    def _read_flat(cls, values: Mapping[str, Any], path: str) -> Self:
        """Make options of values by dotted key."""
        own: Any = cls
        known, hints, given = keys(own), annotated(own), dict[str, Any]()
        for name, hint in hints.items():
            if (group := inline(hint)) is not None:
                given[name] = group._read_flat({k: v for k, v in values.items() if k in every_key(group)}, path)
        values = {key: value for key, value in values.items() if key in known or key in cls.beside}
        values = cls.spelled(values, path)
        missing = [key for key, name in known.items() if key not in values and needed(fields_of(cls)[name])]
        if missing:
            example = next((one.example for one in members(hints[known[missing[0]]]) if hasattr(one, "example")), "")
            remedy = f"add it, such as {missing[0]}: {example}" if example else "add it"
            raise ConfigError(f"{under(path, missing[0])} is missing and has no default: {remedy}.")
        for key, value in values.items():
            name = known.get(key, key)  # a key that `spelled` has made has the value of a field already
            given[name] = read(hints[name], value, under(path, key)) if key in known else value
        try:
            return cls(**given)
        except ConfigError as error:
            raise ConfigError(cls._in_file(str(error), path)) from error

    @classmethod
    def _in_file(cls, sentence: str, path: str) -> str:
        """Return a sentence with the keys of a file in place of the fields' names."""
        own: Any = cls
        if not (prefix := cls.prefix()):
            return sentence
        for key, name in keys(own).items():
            sentence = re.sub(rf"\b{re.escape(prefix + name)}\b", under(path, key), sentence)
        return sentence.replace(prefix, under(path, ""))

    def written(self) -> Any:
        """Return the section of a file that stands for these options: all fields by key."""
        found: dict[str, Any] = {}
        for key, value in self.by_key().items():
            *above, last = key.split(".")
            section = found
            for part in above:
                section = section.setdefault(part, {})
            section[last] = value
        return found

    def by_key(self) -> dict[str, Any]:
        """Return the same as `written`, by dotted key."""
        cls: Any = type(self)
        found: dict[str, Any] = {}
        for name, hint in annotated(cls).items():
            value = getattr(self, name)
            if inline(hint) is not None:
                found |= value.by_key()
            elif key := key_of(name, hint):
                found[key] = written(value)
        return found


def check_known(
    values: Iterable[Any], keys: Iterable[str], path: str, elsewhere: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Refuse unknown keys of a section whose dotted keys are given.

    Raises:
        ConfigError: If a key is unknown; it names the first and the nearest known key.
    """
    every = list(keys)
    known = list(dict.fromkeys(key.partition(".")[0] for key in every))
    for key in values:
        if not isinstance(key, str):
            where = f" in {path}" if path else ""
            raise ConfigError(f"the key {checks.shown(key)}{where} is not text: write it in quotes, or leave it out.")
        if key not in known:
            near = [elsewhere[key]] if key in elsewhere else difflib.get_close_matches(key, [*known, *every], n=1)
            remedy = f"the nearest one is {near[0]}" if near else f"use {any_of(known)}"
            other = " Other arguments of the optimizer go to options." if "options" in known else ""
            raise ConfigError(f"{under(path, key)} is not a setting: {remedy}.{other}")


def _flat(values: Mapping[str, Any], known: Sequence[str], path: str) -> dict[str, Any]:
    """Return the values of a section by dotted key.

    Raises:
        ConfigError: If a key is unknown, or its value must be a section and is not.
    """
    check_known(values, known, path)
    found = {}
    for key, value in values.items():
        below = [one.removeprefix(f"{key}.") for one in known if one.startswith(f"{key}.")]
        if not below:
            found[key] = value
        elif isinstance(value, Mapping):
            found |= {f"{key}.{last}": one for last, one in _flat(value, below, under(path, key)).items()}
        elif value is not None:
            raise ConfigError(
                f"{under(path, key)} is {checks.shown(value)}, but it must be a section with {all_of(below)}."
            )
    return found


def read(annotation: Any, value: Any, path: str) -> Any:
    """Return a value of a file as a field with an annotation holds it: sections become options.

    Raises:
        ConfigError: If it is not what it must be.
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


#: The length of the longest list that is written to a file.
LISTED = 10_000


def written(value: Any) -> Any:
    """Return a field's value as it is written to a file; a data set in memory, for example, is only described."""
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
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [written(item) for item in value] if len(value) <= LISTED else f"<a list of {len(value):,} values>"
    return name_of(value)
