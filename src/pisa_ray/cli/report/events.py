"""Makes the table of a run's events."""

from collections import Counter

from pisa_ray.cli.report.markup import Table
from pisa_ray.cli.report.run import RecordedRun, Row
from pisa_ray.cli.report.text import count, shown

_COLUMNS = {"time": "", "round": "n", "kind": "", "worker": "n", "pid": "n", "node": ""}
_HALF = 200  # the most events that are shown from the beginning, and from the end


def events(run: RecordedRun) -> tuple[str, Table]:
    """Return the number of events of each kind in words, and a table of all events."""
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
