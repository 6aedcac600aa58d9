"""Reads the annotations of options: a field's type and range, its key in a file, and whether a resume may change it."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from pisa_ray import checks

Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Decay = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(1)]


#: A number above 0, in Python also infinity, which is no limit; None: no limit.
Limit = Annotated[
    float | None,
    checks.number(above=0, infinite=True).then(lambda value: None if value == float("inf") else value) | checks.nothing,
    checks.number(above=0) | checks.nothing,
]


class Key(str):
    """An annotation that gives the field's key in the file, where that is not its name.

    "lambda" cannot be a name in Python, "stop.seconds" lies in a section, and "" means that the field has no key.
    """

    __slots__ = ()


class Free:
    """An annotation that lets a resume change the value, as the result of the run does not depend on it.

    Args:
        but: Types of values that must not change.
    """

    def __init__(self, *but: type) -> None:
        self.but = but


class Inline:
    """An annotation of options whose keys stand beside the others in the file, instead of in a section."""


FREE, INLINE = Free(), Inline()
Mark = TypeVar("Mark", Key, Free, Inline)


def under(path: str, key: str) -> str:
    """Return the path of a key in a section; the whole file has the path ""."""
    return f"{path}.{key}" if path else key


def all_of(names: Iterable[str]) -> str:
    """Return names as they appear in a sentence: "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def any_of(names: Sequence[str]) -> str:
    """Return names as they appear in a sentence: "one of a, b"."""
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}" if names else "none"


@functools.cache
def annotated(cls: Any) -> dict[str, Any]:
    """Return the annotation of each field of a dataclass, by name; another class has no fields."""
    if not is_dataclass(cls):
        return {}
    names = {field.name for field in fields(cls) if field.init}
    found: dict[str, Any] = {}
    bases: tuple[type, ...] = cls.__mro__  # type: ignore[union-attr]
    for base in reversed(bases):  # only fields are read, as other annotations may need torch
        own = {name: text for name, text in vars(base).get("__annotations__", {}).items() if name in names}
        where = types.SimpleNamespace(__annotations__=own)
        found |= get_type_hints(where, _names_of(base), include_extras=True)
    return {field.name: found[field.name] for field in fields(cls) if field.init}


def _names_of(cls: type) -> dict[str, Any]:
    """Return the names in a class's module, even if that is no module that can be imported."""
    if cls.__module__ in sys.modules:
        return vars(sys.modules[cls.__module__])
    return next((part.__globals__ for part in vars(cls).values() if hasattr(part, "__globals__")), {})


@functools.cache
def rules(cls: Any) -> dict[str, checks.Rule]:
    """Return the rule of each field of a dataclass, by name."""
    return {name: rule(annotation) for name, annotation in annotated(cls).items()}


def marks(annotation: Any, kind: type[Mark]) -> list[Mark]:
    """Return the marks of one class in an annotation."""
    return [one for one in getattr(annotation, "__metadata__", ()) if isinstance(one, kind)]


def key_of(name: str, annotation: Any) -> str:
    """Return the key of a field in a file."""
    return str(next(iter(marks(annotation, Key)), name))


def inline(annotation: Any) -> Any:
    """Return a field's class of options if their keys stand beside the others, else None."""
    return members(annotation)[0] if marks(annotation, Inline) else None


@functools.cache
def keys(cls: Any) -> dict[str, str]:
    """Return the names of the fields by their keys in the file, without inline options."""
    hints = annotated(cls).items()
    return {key: name for name, hint in hints if inline(hint) is None and (key := key_of(name, hint))}


@functools.cache
def every_key(cls: Any) -> tuple[str, ...]:
    """Return all dotted keys of a section."""
    groups = [group for hint in annotated(cls).values() if (group := inline(hint)) is not None]
    return (*keys(cls), *cls.beside, *(key for group in groups for key in every_key(group)))


@functools.cache
def free(cls: Any) -> dict[str, tuple[type, ...]]:
    """Return the dotted keys that a resume may change, each with the types of values that it may not."""
    found: dict[str, tuple[type, ...]] = {}
    for name, hint in annotated(cls).items():
        mine = next(iter(marks(hint, Free)), None)
        group = inline(hint)
        if mine is not None:
            found |= dict.fromkeys(every_key(group) if group else (key_of(name, hint),), mine.but)
        elif group is not None:
            found |= free(group)
        else:
            for member in members(hint):
                if isinstance(member, type) and hasattr(member, "read_fields") and not hasattr(member, "kinds"):
                    found |= {under(key_of(name, hint), key): but for key, but in free(member).items()}
    return found


def fields_of(cls: Any) -> dict[str, Field[Any]]:
    """Return the fields of a dataclass by name."""
    return {field.name: field for field in fields(cls)}


def needed(field: Field[Any]) -> bool:
    """Return whether a field has no default."""
    return field.default is MISSING and field.default_factory is MISSING


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the one type of another annotation, without what is annotated."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in members(part))
    return (annotation,)


def rule(annotation: Any, *, in_file: bool = False) -> checks.Rule:
    """Return the rule that an annotation stands for; for a file, the rule of options speaks of sections."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    found: checks.Rule | None = _RULES.get(annotation)
    if origin is Annotated:
        own = [one for one in arguments[1:] if isinstance(one, checks.Rule)]  # the second of two is for files
        found = own[-1 if in_file else 0] if own else None
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
    """Return the rule for a number between bounds."""
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
