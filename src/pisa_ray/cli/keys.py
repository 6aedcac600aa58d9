"""The keys of a file as text, made of the options' fields: for `--help`, and for the tables of the documentation."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from typing import Any

from pisa_ray.cli.words import spoken
from pisa_ray.fields import annotated, fields_of, free, inline, key_of, members, needed, rule
from pisa_ray.kinds import Kind
from pisa_ray.options import Options, written
from pisa_ray.trainer.config import Config

#: A line of "Attributes:" in a docstring, with those that go on with it.
_SENTENCE = re.compile(r"^    (\w+): (.*(?:\n     +\S.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Line:
    """What is to be said of a key.

    Attributes:
        key: It, dotted.
        default: What stands for it if it is left out; "": it is required.
        values: What it must be.
        meaning: What it means.
        free: Whether a resume may change it.
    """

    key: str
    default: str
    values: str
    meaning: str
    free: bool


def sentences(cls: Any) -> dict[str, str]:
    """What the docstrings of a class and of those that it is derived from say of the fields, by name."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        text = inspect.cleandoc(vars(base).get("__doc__") or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        found |= {name: " ".join(said.split()) for name, said in _SENTENCE.findall(text)}
    return found


def lines(cls: Any, prefix: str = "") -> Iterator[Line]:
    """The lines of a class of options.

    Args:
        cls: The class.
        prefix: What its keys begin with: "data.".
    """
    said, may = sentences(cls), free(Config)
    for last, hint in cls.beside.items():
        if last in said:
            default = written(cls().by_key()[last]) if not any(map(needed, fields_of(cls).values())) else None
            key = f"{prefix}{last}"
            yield Line(key, json.dumps(default), _values(hint), spoken(said[last]), key in may)
    for name, hint in annotated(cls).items():
        if (group := inline(hint)) is not None:
            yield from lines(group, prefix)
        elif last := key_of(name, hint):
            key = f"{prefix}{last}"
            yield Line(key, _default(cls, name), _values(hint), spoken(said.get(name, "")), key in may)


def _default(cls: Any, name: str) -> str:
    field = fields_of(cls)[name]
    value = field.default if field.default_factory is MISSING else field.default_factory()
    if value is MISSING:
        return ""
    if isinstance(value, Kind) and value == type(value)():
        return value.kind
    value = written(value)
    return value if isinstance(value, str) else json.dumps(value)


def _values(hint: Any) -> str:
    sections = [one for one in members(hint) if isinstance(one, type) and issubclass(one, Options)]
    if any(issubclass(one, Kind) for one in sections):
        return "a kind, or a section" + (" or null" if type(None) in members(hint) else "")
    return spoken(rule(hint, in_file=True).text)


def table(found: Iterator[Line]) -> str:
    """Lines as a table in Markdown."""
    head = "| key | default | values | meaning |\n|---|---|---|---|\n"
    rows = []
    for line in found:
        default = f"`{line.default}`" if line.default else "required"
        resume = " *" if line.free else ""
        rows.append(f"| `{line.key}`{resume} | {default} | {_cell(line.values)} | {_cell(line.meaning)} |\n")
    return head + "".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def text() -> str:
    """The keys of a configuration file, for a terminal."""
    found = ["keys of CONFIG.yaml, with their defaults (docs/configuration.md has all, and those of each kind):"]
    for group in reversed(Config.__mro__):
        if group in (Config, Options, object):
            continue
        found.append(f"\n{inspect.cleandoc(group.__doc__ or '').partition('.')[0]}:")
        for line in lines(group):
            meaning = line.meaning.partition(". ")[0].removesuffix(".")
            said = f"{line.key} ({line.default or 'required'}): {meaning}"
            found += textwrap.wrap(said, 100, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(found) + "\n"
