"""The keys of a file, read from the options' fields: for `--help`, and for the tables of the documentation."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from typing import Any

from pisa_ray.cli.words import spoken
from pisa_ray.fields import annotated, fields_of, inline, key_of, members, needed, rule
from pisa_ray.kinds import Kind
from pisa_ray.options import Options, written
from pisa_ray.trainer.config import Config

#: A line of "Attributes:" in a docstring, with those that go on with it.
_SENTENCE = re.compile(r"^    (\w+): (.*(?:\n     +\S.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Line:
    """The description of a key.

    Attributes:
        key: The dotted key.
        default: Its default, or "required" or "none".
        values: The values that it may have.
        meaning: Its meaning.
    """

    key: str
    default: str
    values: str
    meaning: str


def sentences(cls: Any) -> dict[str, str]:
    """Return what the docstrings of a class and of its bases say of the fields, by name."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base not in (Options, Kind):  # their attributes are not keys
            text = inspect.cleandoc(vars(base).get("__doc__") or "").partition("Attributes:\n")[2].partition("\n\n")[0]
            found |= {name: " ".join(said.split()) for name, said in _SENTENCE.findall(text)}
    return found


def lines(cls: Any, prefix: str = "") -> Iterator[Line]:
    """Yield the descriptions of the keys of a class of options.

    Args:
        cls: The class.
        prefix: The prefix of its keys: "data.".
    """
    said = sentences(cls)
    for last, hint in cls.beside.items():
        if last in said:
            value = None if any(map(needed, fields_of(cls).values())) else cls().by_key().get(last, MISSING)
            default = "none" if value is MISSING else _shown(value)
            meaning = said[last].removeprefix("In a file, ")  # where else
            yield Line(f"{prefix}{last}", default, _values(hint), spoken(meaning[:1].upper() + meaning[1:]))
    for name, hint in annotated(cls).items():
        if (group := inline(hint)) is not None:
            yield from lines(group, prefix)
        elif last := key_of(name, hint):
            field = fields_of(cls)[name]
            value = field.default if field.default_factory is MISSING else field.default_factory()
            yield Line(f"{prefix}{last}", _shown(value), _values(hint), spoken(said.get(name, "")))


def _shown(value: Any) -> str:
    if value is MISSING:
        return "required"
    if isinstance(value, Kind) and value == type(value)():
        return value.kind
    value = written(value)
    return value if isinstance(value, str) else json.dumps(value).replace("Infinity", "null").removesuffix(".0")


#: Parts of a rule's text that do not apply to files, or are needless in a table.
_IN_A_TABLE = {"a finite number": "a number", "a text": "text", "a function or ": ""}


def _values(hint: Any) -> str:
    text = rule(hint, in_file=True).text
    for member in members(hint):
        if isinstance(member, type) and issubclass(member, Kind):
            return "a kind or a section" + (", or null" if type(None) in members(hint) else "")
        if isinstance(member, type) and issubclass(member, Options) and "section" not in vars(member):
            text = text.replace(member.section(), "a section")
    for long, short in _IN_A_TABLE.items():
        text = text.replace(long, short)
    return spoken(text)


def text() -> str:
    """Return the keys of a configuration file as text for a terminal."""
    found = ["keys of CONFIG.yaml, with their defaults (those of each kind: docs/configuration.md, docs/methods.md):"]
    for group in reversed(Config.__mro__):
        if group in (Config, Options, object):
            continue
        found.append(f"\n{inspect.cleandoc(group.__doc__ or '').partition('.')[0]}:")
        for line in lines(group):
            meaning = line.meaning.partition(". ")[0].removesuffix(".")
            said = f"{line.key} ({line.default}): {meaning}"
            found += textwrap.wrap(said, 100, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(found) + "\n"
