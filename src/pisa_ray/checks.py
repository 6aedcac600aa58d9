"""Rules for arguments: each returns a value as a plain Python object, or refuses it in one sentence.

A number may come as a NumPy scalar or a tensor without dimensions. The rest of the library sees an int or a float, so
results, hashes and config.yaml are those of the plain number.
"""

from __future__ import annotations

import datetime
import math
import numbers
import os
import reprlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pisa_ray.errors import ConfigError

#: Returned by a rule's `take` for a value of the wrong kind.
NOT = object()

#: Whole numbers must be below this, as hashes, files and tensors hold no larger ones.
_LARGEST = 2**63
#: The most bytes of one name in a path, and the most letters of a whole path, that file systems accept.
_LONGEST_PART, _LONGEST_PATH = 255, 4000

#: The most bytes of a folder's name, which leaves room for a prefix and a suffix on most file systems.
LONGEST_NAME = 200


@dataclass(frozen=True)
class Rule:
    """A rule for a value; `a | b` accepts what either rule accepts.

    Attributes:
        text: What the value must be, as a sentence goes on after "must be".
        take: (name, value) -> the value to use, or NOT.
    """

    text: str
    take: Callable[[str, Any], Any]

    def __call__(self, name: str, value: Any) -> Any:
        """Return the value to use.

        Args:
            name: The user's name for it.
            value: The value that the user gave.

        Raises:
            ConfigError: If it is not what it must be.
        """
        taken = self.take(name, plain(value))
        if taken is NOT:
            raise ConfigError(f"{name} is {shown(value)}, but it must be {self.text}.")
        return taken

    def __or__(self, other: Rule) -> Rule:
        def take(name: str, value: Any) -> Any:
            taken = self.take(name, value)
            return other.take(name, value) if taken is NOT else taken

        return Rule(f"{self.text} or {other.text}", take)

    def then(self, make: Callable[[Any], Any]) -> Rule:
        """Return a rule that accepts the same and passes the value on to `make`."""

        def take(name: str, value: Any) -> Any:
            taken = self.take(name, value)
            return taken if taken is NOT else make(taken)

        return Rule(self.text, take)


def number(
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    infinite: bool = False,
) -> Rule:
    """Return a rule for a float between bounds; truth values are refused.

    Args:
        above: The number must be larger than this.
        least: The number must be at least this.
        below: The number must be smaller than this.
        most: The number must be at most this.
        infinite: Whether it may be infinite.
    """

    def take(name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return NOT
        try:
            found = float(value)
        except (OverflowError, ValueError):
            return NOT
        if math.isnan(found) or (math.isinf(found) and not infinite):
            return NOT
        return found if _within(found, above, least, below, most) else NOT

    bounded = infinite or (above, least) != (None, None) != (below, most)
    return Rule(f"a{'' if bounded else ' finite'} number{_bounds(above, least, below, most)}", take)


def whole(*, least: int | None = None, most: int | None = None) -> Rule:
    """Return a rule for an int between bounds; a float such as 1e3 is accepted, a truth value is not."""

    def take(name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return NOT
        given: Any = value
        try:
            found = int(given)
        except (OverflowError, ValueError):  # infinite, or not a number
            return NOT
        if found != value:
            return NOT
        if abs(found) >= _LARGEST:
            raise ConfigError(f"{name} is {shown(value)}, but it must be below 2**63.")
        return found if _within(found, None, least, None, most) else NOT

    return Rule(f"a whole number{_bounds(None, least, None, most)}", take)


def instance(text: str, *kinds: Any) -> Rule:
    """Return a rule for an object of some classes or protocols, which is not a class itself.

    Args:
        text: A description with an example: "a partition such as IID(shards=10)".
        kinds: The classes.
    """

    def take(name: str, value: Any) -> Any:
        return value if isinstance(value, kinds) and not isinstance(value, type) else NOT

    return Rule(text, take)


def choice(*names: str) -> Rule:
    """Return a rule for one of some texts."""
    *others, last = map(repr, names)
    return Rule(
        f"{', '.join(others)} or {last}" if others else last,
        lambda name, value: str(value) if isinstance(value, str) and value in names else NOT,
    )


def sequence(of: Rule, text: str, *, least: int = 0) -> Rule:
    """Return a rule that checks each item of a list, a tuple, an array or a tensor, and makes a tuple of them.

    Args:
        of: The rule for each item.
        text: A description of the whole: "a list of numbers, one per channel".
        least: The smallest number of items.
    """

    def take(name: str, value: Any) -> Any:
        if isinstance(value, str | bytes | Mapping | set | frozenset) or not isinstance(value, Iterable):
            return NOT
        try:
            items = list(value)
        except Exception:  # the user's object may raise anything when it is iterated over
            return NOT
        if len(items) < least:
            return NOT
        return tuple(of(f"{name}[{i}]", item) for i, item in enumerate(items))

    return Rule(text, take)


def mapping(of: Rule, text: str) -> Rule:
    """Return a rule for a dictionary with texts as keys, which checks its values.

    Args:
        of: The rule for each value.
        text: A description of the whole: "a dictionary of labels".
    """

    def take(name: str, value: Any) -> Any:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            return NOT
        return {str(key): of(f"{name}[{key!r}]", item) for key, item in value.items()}

    return Rule(text, take)


def _path(name: str, value: Any) -> Any:
    if not isinstance(value, str | os.PathLike):
        return NOT
    found = os.fspath(value)
    if not isinstance(found, str) or not found:
        return NOT
    try:
        longest = max(map(len, os.fsencode(found).split(b"/")))
    except UnicodeEncodeError:
        longest = 0
    if "\0" in found or not 0 < longest <= _LONGEST_PART or len(found) > _LONGEST_PATH:
        raise ConfigError(
            f"{name} is {shown(found)}, but no file or folder can have such a path: use one without NUL and lone "
            f"surrogates, of names of at most {_LONGEST_PART} bytes."
        )
    return found


def _folder_name(name: str, value: Any) -> Any:
    if not isinstance(value, str) or not value.strip() or value in (".", ".."):
        return NOT
    if set(value) & set("/\\") or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
        return NOT
    return str(value) if len(value.encode()) <= LONGEST_NAME else NOT


flag = Rule("True or False", lambda name, value: value if isinstance(value, bool) else NOT)
text = Rule("a text", lambda name, value: str(value) if isinstance(value, str) and value else NOT)
path = Rule("a path", _path)
folder_name = Rule(
    f"a name that a folder can have: 1 to {LONGEST_NAME} bytes without slashes or control characters, not '.' or '..'",
    _folder_name,
)
function = Rule("a function", lambda name, value: value if callable(value) else NOT)
nothing = Rule("None", lambda name, value: value if value is None else NOT)
as_it_is = Rule("a value", lambda name, value: value)
within = Rule("a value", lambda name, value: plain_within(value))


def plain(value: Any) -> Any:
    """Return a number or a text of NumPy or torch as a plain Python object, and anything else unchanged."""
    if value is None or type(value) in (bool, int, float, str) or isinstance(value, type):
        return value
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        try:
            return value.item()
        except Exception:  # a tensor may have no value, such as one on the meta device
            return value
    return value


def plain_within(value: Any) -> Any:
    """Return the same as `plain`, also for the items of lists, tuples and dictionaries."""
    if isinstance(value, Mapping):
        return {key: plain_within(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain_within(item) for item in value)
    return plain(value)


def shown(value: Any) -> str:
    """Return a value as it appears in a sentence: a short one as it is written, an object by its class."""
    value = plain(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, datetime.date):  # YAML makes dates of texts that look like one
        return str(value)
    if value is None or isinstance(value, bool | int | float | str | bytes | list | tuple | dict | set | os.PathLike):
        try:
            found = _SHORT.repr(value)
        except Exception:  # a number may have too many digits, and an object's repr may fail
            found = ""
        if found and "\n" not in found:
            return found
    return kind_of(value)


def kind_of(value: Any) -> str:
    """Return the class of an object with an article: "a Tensor"."""
    kind = type(value).__name__
    return f"{'an' if kind[:1] in 'AEIOUaeiou' else 'a'} {kind}"


def _within(value: float, above: float | None, least: float | None, below: float | None, most: float | None) -> bool:
    return (
        (above is None or value > above)
        and (least is None or value >= least)
        and (below is None or value < below)
        and (most is None or value <= most)
    )


def _digits(value: float | None) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _bounds(above: float | None, least: float | None, below: float | None, most: float | None) -> str:
    lower = (
        f" above {_digits(above)}"
        if above is not None
        else f" of at least {_digits(least)}"
        if least is not None
        else ""
    )
    upper = f" below {_digits(below)}" if below is not None else f" at most {_digits(most)}" if most is not None else ""
    if upper and not lower:
        return f" of{upper}" if most is not None else upper
    return lower + (f" and{upper}" if upper else "")


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
