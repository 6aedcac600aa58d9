"""Values as people read them."""

import json
import math

_LIMIT = 2000  # characters shown of one value


def number(value: object) -> float | None:
    """The value as a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond all floats
        return None


def shown(value: object) -> str:
    """Whatever a file holds, as text, cut where it is very long."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LIMIT else text[:_LIMIT] + " …"


def count(n: int, noun: str) -> str:
    """So many of something."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def short(value: object) -> str:
    """A number in few digits."""
    if (x := number(value)) is None:
        return "-"
    return f"{x:,.0f}" if x == int(x) and abs(x) < 1e15 else f"{x:.4g}"


def percent(value: object, digits: int = 2) -> str:
    """A share of one."""
    return "-" if (x := number(value)) is None else f"{100 * x:.{digits}f} %"


def duration(value: object) -> str:
    """Seconds, minutes or hours, from seconds."""
    if (seconds := number(value)) is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(value: object) -> str:
    """Bytes, in the unit that suits."""
    if (x := number(value)) is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if x < 999.5:
            return f"{x:.3g} {unit}"
        x /= 1000
    return f"{x:,.3g} TB"
