"""What is wrong with a configuration file, in one sentence: which key, what it is, what it should be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

_EXAMPLES = {
    "data": ", such as data: {dataset: digits}",
    "partition": ", such as partition: {kind: iid, shards: 10}",
    "model": ", such as model: {kind: mlp}",
}

#: What a value must be, by pydantic's name of the error.
_RULES = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "finite_number": "a finite number",
    "string_type": "text",
    "list_type": "a list, such as [1, 2]",
    "dict_type": "a section of `key: value` lines",
    "too_short": "a list of at least {min_length} item",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
}


def sentence(error: ValidationError, values: Mapping[str, Any], schema: type[BaseModel]) -> str:
    """The error that helps most, for people: which key, what it is, what it should be.

    Args:
        error: All that pydantic found.
        values: What the file says.
        schema: What it should say.
    """
    errors = [(_path(e["loc"], values), e) for e in error.errors()]
    # A misspelt key comes before the one that is missing therefore; what is wrong inside a section before the section.
    unknown = [(path, e) for path, e in errors if e["type"] == "extra_forbidden"]
    path, first = unknown[0] if unknown else max(errors, key=lambda e: (e[0][:1] == errors[0][0][:1], _depth(*e)))
    key, kind = ".".join(path), first["type"]
    sections = _sections(path[:-1] if unknown else path, values, schema)
    if unknown:
        known = _keys(sections)
        near = difflib.get_close_matches(path[-1], known, n=1)
        other = " Other arguments of the optimizer go to options." if "options" in known else ""
        return (
            f"{key} is not a setting: " + (f"the nearest one is {near[0]}." if near else f"use {_any(known)}.") + other
        )
    if kind == "invalid_key":
        above = ".".join(part for part in path if part != str(first["loc"][-1]))
        where = f" in {above}" if above else ""
        return f"the key {shown(first['input'])}{where} is no text: write it in quotes if it is meant, or leave it out."
    if kind == "missing":
        name = str(first["loc"][-1])
        kinds = _kinds(sections) if name == "kind" else []
        remedy = f": use {_any(kinds)}" if kinds else f" and has no default: add it{_EXAMPLES.get(name, '')}"
        return f"{'.'.join([*path, name])} is missing{remedy}."
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        choice = _any(_kinds(sections))
        if kind == "union_tag_not_found":
            return f"{key}.kind is missing: use {choice}."
        return f"{key}.kind is {first['ctx']['tag']!r}, but it must be {choice}."
    members = [e for other, e in errors if other == path]  # more than one where a key may hold different things
    members = [e for e in members if e["type"] == "value_error"][:1] or members
    rules = dict.fromkeys(_rule(e, sections) for e in members)
    return f"{key} is {shown(first['input'])}, but it must be {' or '.join(rules)}."


def _depth(path: list[str], error: Any) -> int:
    return len(path) + int(error["type"] == "missing")


def _rule(error: Any, sections: list[type[BaseModel]]) -> str:
    """What one error asks for, as it goes on after "must be"."""
    kind = error["type"]
    if kind.startswith("model_") and sections:
        kinds = _kinds(sections)
        if _keys(sections) == ["hint"]:
            return "{hint: a number}"
        keys = " and ".join(filter(None, [", ".join(_keys(sections)[:-1]), _keys(sections)[-1]]))
        return f"a section such as {{kind: {kinds[0]}}}" if kinds else f"a section with {keys}"
    rule = _RULES.get(kind)
    if kind == "string_type" and isinstance(error["input"], int | float | date):
        return "text in quotes"
    if rule is None:
        return re.sub(r"^(Value error, must be |Input should be )", "", error["msg"])
    return rule.format(**error.get("ctx", {})).replace("False", "false")


def shown(value: Any) -> str:
    """A value as YAML writes it, cut short."""
    text = str(value) if isinstance(value, date) else repr(value)
    text = {"None": "null", "True": "true", "False": "false"}.get(text, text)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def flags_for_numbers(given: Any, read: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Where true or false was given and taken for 1 or 0."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key in given:
            yield from flags_for_numbers(given[key], read[key], f"{prefix}{key}.")
    elif isinstance(given, list) and isinstance(read, list):
        for i, item in enumerate(given):
            yield from flags_for_numbers(item, read[i], f"{prefix}{i}.")
    elif isinstance(given, bool) and not isinstance(read, bool):
        yield prefix.rstrip("."), given


def _path(location: tuple[int | str, ...], values: Any) -> list[str]:
    """The keys of a location that are in the file; pydantic puts names of its union members between them."""
    path = []
    for part in location:
        there = part in values if isinstance(values, dict) else isinstance(values, list) and isinstance(part, int)
        if there:
            values = values[part]
            path.append(str(part))
    return path


def _sections(path: list[str], values: Any, schema: type[BaseModel]) -> list[type[BaseModel]]:
    """The sections that may stand at a path: one where its kind says which."""
    models, of_any_name = [schema], False
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
        kind = values.get("kind") if isinstance(values, dict) else None
        if of_any_name:
            models, of_any_name = [model for model in models if kind in _kinds([model])] or models, False
            continue
        annotations = [
            field.annotation
            for model in models
            for name, field in model.model_fields.items()
            if key in (name, field.alias)
        ]
        of_any_name = any(get_origin(annotation) is dict for annotation in annotations)
        below = [member for annotation in annotations for member in _models(annotation)]
        models = [model for model in below if kind in _kinds([model])] or below
    return models


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _keys(sections: list[type[BaseModel]]) -> list[str]:
    return list(dict.fromkeys(field.alias or name for s in sections for name, field in s.model_fields.items()))


def _kinds(sections: list[type[BaseModel]]) -> list[str]:
    """The names that choose among sections; model.kind is none, as it leaves the keys as they are."""
    fields = [section.model_fields["kind"] for section in sections if "kind" in section.model_fields]
    return [kind for field in fields for kind in get_args(field.annotation) if isinstance(kind, str)]


def _any(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
