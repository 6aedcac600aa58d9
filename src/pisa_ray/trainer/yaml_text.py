"""Reads YAML from files that anybody may have written: plain values only, of limited size and depth."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

#: The most levels of nesting, and the most values with all aliases written out.
DEEPEST, MOST = 50, 1_000_000

#: Characters that no text can have: NUL, and lone surrogates except those that stand for bytes in paths.
_NO_TEXT = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")


class _Loader(yaml.SafeLoader):
    """A loader of plain values, for which 1e-3 is a number, and a key that is there twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a dictionary, and refuse a key that is there twice."""
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _wrong(key, f"the key {key.value} is there twice")
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_text(self, node: yaml.ScalarNode) -> Any:
        """Make a text, and refuse characters that no text can have."""
        text = self.construct_yaml_str(node)
        if isinstance(text, str) and _NO_TEXT.search(text):
            raise _wrong(node, "a text has a character that no text can have, such as NUL,")
        return text

    def construct_number(self, node: yaml.ScalarNode) -> int:
        """Make a whole number, and refuse one that is too large for a float."""
        number = self.construct_yaml_int(node)
        try:
            float(number)
        except OverflowError:
            raise _wrong(node, "a number is too large") from None
        return number


def _wrong(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)


def _guarded(construct: Callable[[Any, Any], Any], kind: str) -> Callable[[Any, Any], Any]:
    """Return a constructor whose errors name the line."""

    def guarded(loader: _Loader, node: yaml.Node) -> Any:
        try:
            return construct(loader, node)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
            shown = str(node.value) if isinstance(node, yaml.ScalarNode) else "what is there"
            shown = shown if len(shown) <= 40 else f"{shown[:36]} ..."
            raise _wrong(node, f"{shown} is not {kind}") from error

    return guarded


_TAGS = {
    "null": (_Loader.construct_yaml_null, "null"),
    "bool": (_Loader.construct_yaml_bool, "true or false"),
    "int": (_Loader.construct_number, "a whole number"),
    "float": (_Loader.construct_yaml_float, "a number"),
    "timestamp": (_Loader.construct_yaml_timestamp, "a date"),
    "str": (_Loader.construct_text, "text"),
}
_Loader.yaml_constructors = {
    **{f"tag:yaml.org,2002:{tag}": _guarded(*how) for tag, how in _TAGS.items()},
    "tag:yaml.org,2002:seq": _Loader.construct_yaml_seq,
    "tag:yaml.org,2002:map": _Loader.construct_yaml_map,
    None: _Loader.construct_undefined,
}
_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse(text: str) -> Any:
    """Read the value of a YAML text.

    Raises:
        ValueError: If it is not YAML, or not plain values; it names the fault and the line.

    Example:
        >>> parse("rounds: 3")
        {'rounds': 3}
    """
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(
            f"it has a character that no text can have, number {error.character}, in line {line}"
        ) from error
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        problem = str(error.problem or error.context).replace("found unhashable key", "a key is not text")
        raise ValueError(f"{problem}{where}") from error
    except Exception as error:  # the library below may raise anything
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    _size(value, {}, 0)
    return value


def _size(value: Any, known: dict[int, int | None], depth: int) -> int:
    """Return the number of values, with all aliases written out.

    Raises:
        ValueError: If they are too many or too deep, or an alias contains itself.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) in known:
        size = known[id(value)]
        if size is None:
            raise ValueError("an alias stands for a part of itself")
        return size
    if depth == DEEPEST:
        raise ValueError("it is nested too deeply")
    known[id(value)] = None
    size = 1 + sum(_size(v, known, depth + 1) for v in (value.values() if isinstance(value, dict) else value))
    if size > MOST:
        raise ValueError(f"with all aliases written out it holds more than {MOST:,} values")
    known[id(value)] = size
    return size
