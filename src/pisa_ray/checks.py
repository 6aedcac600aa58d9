"""What arguments must be: rules that give a value back as plain Python, or refuse it in one sentence.

Whatever a number comes as (a NumPy scalar, a tensor without dimensions), the rest of the library sees an int or a
float, so results, hashes and config.yaml are those of the plain number.
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

#: What a rule's `take` returns for a value that is nothing of its kind.
NOT = object()

#: Whole numbers lie below this; hashes, files and tensors hold no larger ones.
_LARGEST = 2**63
#: Bytes of one name in a path, and letters of a whole one, that file systems take.
_LONGEST_PART, _LONGEST_PATH = 255, 4000

#: Bytes of a folder's name on most file systems, without room for what is put around it.
LONGEST_NAME = 200


@dataclass(frozen=True)
class Rule:
    """What a value must be; `a | b` is a rule for either.

    Attributes:
        text: It, as it goes on after "must be".
        take: (name, value) -> the value to be used, or NOT.
    """

    text: str
    take: Callable[[str, Any], Any]

    def __call__(self, name: str, value: Any) -> Any:
        """The value to be used.

        Args:
            name: What the user calls it.
            value: What the user gave.

        Raises:
            ConfigError: It is not what it must be.
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
        """The same rule, with something made of the value."""

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
    """A float between bounds; truth values are none.

    Args:
        above: It is larger than this.
        least: It is this or larger.
        below: It is smaller than this.
        most: It is this or smaller.
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
    """An int between bounds; a float without a fraction is one, such as 1e3, a truth value is none."""

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
    """An object of some classes or protocols, and not a class itself.

    Args:
        text: What it is, with an example: "a partition such as IID(shards=10)".
        kinds: The classes.
    """

    def take(name: str, value: Any) -> Any:
        return value if isinstance(value, kinds) and not isinstance(value, type) else NOT

    return Rule(text, take)


def choice(*names: str) -> Rule:
    """One of some texts."""
    *others, last = map(repr, names)
    return Rule(
        f"{', '.join(others)} or {last}" if others else last,
        lambda name, value: str(value) if isinstance(value, str) and value in names else NOT,
    )


def sequence(of: Rule, text: str, *, least: int = 0) -> Rule:
    """A tuple of what a list, a tuple, an array or a tensor holds, each checked.

    Args:
        of: The rule for each.
        text: What it is all together: "a list of numbers, one a channel".
        least: How many there are at least.
    """

    def take(name: str, value: Any) -> Any:
        if isinstance(value, str | bytes | Mapping | set | frozenset) or not isinstance(value, Iterable):
            return NOT
        try:
            items = list(value)
        except Exception:  # whatever the iteration of somebody's object raises
            return NOT
        if len(items) < least:
            return NOT
        return tuple(of(f"{name}[{i}]", item) for i, item in enumerate(items))

    return Rule(text, take)


def mapping(of: Rule, text: str) -> Rule:
    """A dictionary with texts as keys, its values checked.

    Args:
        of: The rule for each value.
        text: What it is all together: "a dictionary of labels".
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
    """A number or text of NumPy's or torch's as Python's own; anything else as it is."""
    if value is None or type(value) in (bool, int, float, str) or isinstance(value, type):
        return value
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        try:
            return value.item()
        except Exception:  # a tensor that has no value, such as one on the meta device
            return value
    return value


def plain_within(value: Any) -> Any:
    """The same, also for what lists, tuples and dictionaries hold."""
    if isinstance(value, Mapping):
        return {key: plain_within(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain_within(item) for item in value)
    return plain(value)


def shown(value: Any) -> str:
    """A value in a sentence: short ones as they are written, objects by their class."""
    value = plain(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, datetime.date):  # which YAML makes of what looks like one
        return str(value)
    if value is None or isinstance(value, bool | int | float | str | bytes | list | tuple | dict | set | os.PathLike):
        try:
            found = _SHORT.repr(value)
        except Exception:  # digits without end, or an object whose repr fails
            found = ""
        if found and "\n" not in found:
            return found
    return kind_of(value)


def kind_of(value: Any) -> str:
    """An object by its class: "a Tensor"."""
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
