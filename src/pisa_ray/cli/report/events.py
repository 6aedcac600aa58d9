"""The events of a run, in order."""

from collections import Counter

from pisa_ray.cli.report.markup import Table
from pisa_ray.cli.report.run import Row, Run
from pisa_ray.cli.report.text import count, shown

_COLUMNS = {"time": "", "round": "n", "kind": "", "worker": "n", "pid": "n", "node": ""}
_HALF = 200  # events shown at most of the beginning, and of the end


def events(run: Run) -> tuple[str, Table]:
    """How many there were of each kind, and each with its details."""
    kinds = Counter(shown(event.get("kind")) for event in run.events).most_common()
    about = f"{count(len(run.events), 'event')}: " + ", ".join(f"{kind} {n}" for kind, n in kinds)
    rows = [_cells(event) for event in run.events]
    skipped = len(rows) - 2 * _HALF
    if skipped > 0:
        rows[_HALF:-_HALF] = [[*("" for _ in _COLUMNS), f"{skipped:,} events between are in events.jsonl only"]]
    return about, Table("Events, in order", [*_COLUMNS.items(), ("details", "any")], rows)


def _cells(event: Row) -> list[str]:
    rest = ", ".join(f"{key}={shown(value)}" for key, value in event.items() if key not in _COLUMNS)
    return [*(shown(event.get(key)) for key in _COLUMNS), rest]
