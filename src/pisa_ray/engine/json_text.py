"""Reads JSON from files that others may have written or damaged."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn, TypeGuard


def parse(raw: bytes) -> Any:
    """Parse JSON in UTF-8, whose numbers must be finite and fit a float.

    Raises:
        ValueError: If the text is not such JSON; the message says why.

    Example:
        >>> parse(b'{"round": 3}')
        {'round': 3}
    """
    try:
        return json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse, parse_float=_number, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8") from error


def is_count(value: object) -> TypeGuard[int]:
    """Return whether a value is a whole number of 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse(text if len(text) <= 20 else f"{text[:20]} ...")
    return value


def _integer(text: str) -> int:
    if len(text) > 300:  # a longer number does not fit a float
        _refuse(f"{text[:20]} ...")
    return int(text)
