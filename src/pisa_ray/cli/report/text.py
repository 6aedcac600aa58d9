"""Formats values for people."""

import json
import math

_LIMIT = 2000  # characters shown of one value


def number(value: object) -> float | None:
    """Return the value as a finite number, or None if it is anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number may be too large for a float
        return None


def shown(value: object) -> str:
    """Return a value of a file as text, cut if it is very long."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LIMIT else text[:_LIMIT] + " …"


def count(n: int, noun: str) -> str:
    """Return a number with a noun."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def short(value: object) -> str:
    """Return a number in few digits."""
    if (x := number(value)) is None:
        return "-"
    return f"{x:,.0f}" if x == int(x) and abs(x) < 1e15 else f"{x:.4g}"


def percent(value: object, digits: int = 2) -> str:
    """Return a share of one in percent."""
    return "-" if (x := number(value)) is None else f"{100 * x:.{digits}f} %"


def duration(value: object) -> str:
    """Return seconds as seconds, minutes or hours."""
    if (seconds := number(value)) is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(value: object) -> str:
    """Return bytes in a suitable unit."""
    if (x := number(value)) is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if x < 999.5:
            return f"{x:.3g} {unit}"
        x /= 1000
    return f"{x:,.3g} TB"
