"""Shows the partition: how many rows of each label each shard has."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from pisa_ray.cli.report.figures import draw_partition, label_colours
from pisa_ray.cli.report.markup import Table, area_key
from pisa_ray.cli.report.run import RecordedRun, Row
from pisa_ray.cli.report.text import count, number

_MATRIX_LABELS = 12  # with more labels, the table names only the most frequent ones of each shard
_NAMED_LABELS = 4


class Partition(NamedTuple):
    """The shards of a run in a sentence, in a figure with its legend, and in a table."""

    about: str
    svg: Markup
    legend: list[Markup]
    table: Table


def partition(run: RecordedRun, index: int) -> Partition:
    """Describe the shards of a run, of which there is at least one; `index` is the run's place on the page."""
    counts = [_counts(shard) for shard in run.shards]
    rows = [
        int(n) if (n := number(shard.get("rows"))) is not None else sum(labels.values())
        for shard, labels in zip(run.shards, counts, strict=True)
    ]
    labels = sorted({label for one in counts for label in one}, key=_order)
    about = f"{count(len(rows), 'shard')}, {count(sum(rows), 'row')}"
    about += f", {count(len(labels), 'label')}" if labels else ", no labels recorded"
    about += f"; smallest shard {min(rows):,}, largest {max(rows):,} rows."
    stacks = [[one.get(label, 0) for label in labels] for one in counts] if labels else [[n] for n in rows]
    svg = draw_partition(stacks, salt=f"partition{index}", description=f"Rows of each shard by label: {about}")
    legend = [area_key(colour) + label for label, colour in zip(labels, label_colours(len(labels)), strict=True)]
    return Partition(about, svg, legend, _table(rows, counts, labels))


def _counts(shard: Row) -> dict[str, int]:
    labels = shard.get("labels")
    if not isinstance(labels, dict):
        return {}
    return {str(k): int(n) for k, v in labels.items() if (n := number(v)) is not None and n > 0}


def _order(label: str) -> tuple[float, str]:
    """Return a key that sorts numbers by their value, and other labels after them."""
    try:
        return float(label), label
    except ValueError:
        return float("inf"), label


def _table(rows: Sequence[int], counts: Sequence[Mapping[str, int]], labels: Sequence[str]) -> Table:
    columns = [("Shard", "row"), ("Rows", "n")]
    if len(labels) <= _MATRIX_LABELS:
        columns += [(label, "n") for label in labels]
        cells = [[f"{one[label]:,}" if label in one else "-" for label in labels] for one in counts]
    else:
        columns += [("Labels", "n"), ("Most frequent (rows)", "any")]
        cells = [[f"{len(one)}", _largest(one)] for one in counts]
    body = [[f"{i}", f"{n:,}", *rest] for i, (n, rest) in enumerate(zip(rows, cells, strict=True))]
    return Table("Rows of each shard, by label", columns, body)


def _largest(labels: Mapping[str, int]) -> str:
    top = sorted(labels, key=lambda label: -labels[label])
    named = ", ".join(f"{label} ({labels[label]:,})" for label in top[:_NAMED_LABELS])
    return named + (f", {len(top) - _NAMED_LABELS} more" if len(top) > _NAMED_LABELS else "")
