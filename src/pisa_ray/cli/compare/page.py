"""Makes index.html, with tables, curves of the score over work, and the settings of every row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import yaml
from markupsafe import Markup

from pisa_ray.cli.compare.results import CellResult
from pisa_ray.cli.compare.tables import Row, cells_of, headings
from pisa_ray.cli.comparison import Spec
from pisa_ray.cli.report.figures import Line, draw_curves, thin
from pisa_ray.cli.report.markup import CODE, Figure, Table, line_key, render
from pisa_ray.cli.report.text import count

_EQUAL = {
    "gradients": "every algorithm computes as many gradients of rows as {rounds} of one mini-batch a shard",
    "bytes": "every algorithm sends as many vectors as {rounds} of one vector a shard",
    "rounds": "every algorithm runs {rounds}, whatever they cost",
}
_CAPTION = "Mean ± standard deviation (smallest to largest) over the seeds that came to their end"
#: Options of YAML that is written as people write it.
_ONE_LINE: dict[str, Any] = {"width": 10_000, "allow_unicode": True, "sort_keys": False}


def write_page(spec: Spec, rows: Sequence[Row], results: Sequence[CellResult]) -> str:
    """Return the page, which needs no other file and no network."""
    file = spec.file
    numbers = (file.algorithms, "algorithm"), (file.partitions, "partition"), (file.seeds, "seed")
    rounds = spec.config(None, next(iter(file.partitions)), file.seeds[0]).rounds
    equal = _EQUAL[file.equal].format(rounds=count(rounds, "round"))
    return render(
        "compare/page.jinja",
        title=file.name or "Comparison",
        about=f"{', '.join(count(len(some), noun) for some, noun in numbers)}. At equal {file.equal}: {equal}.",
        partitions=[
            (name, _table(spec, name, rows), _figure(spec, name, results, i)) for i, name in enumerate(file.partitions)
        ],
        lost=[one for one in results if not one.measured],
        settings=_settings(spec, rows),
        base=_yaml(file.base),
        whole=yaml.safe_dump(file.written(), sort_keys=False, allow_unicode=True),
    )


def _table(spec: Spec, partition: str, rows: Sequence[Row]) -> Table:
    """Return the table of a partition, whose rows have the colours of its curves."""
    keys = {name: line_key(i) + name for i, name in enumerate(spec.file.algorithms)}
    columns = [("Algorithm", "name"), *((_sentence(name), "n") for name in headings(rows))]
    own = [row for row in rows if row["partition"] == partition]
    return Table(_CAPTION, columns, [[keys[row["algorithm"]], *map(_two_lines, cells_of(row))] for row in own])


def _figure(spec: Spec, partition: str, results: Sequence[CellResult], number: int) -> Figure | None:
    """Draw the score over work: a line per algorithm, with a band from its smallest to its largest seed."""
    score, lines, keys = spec.file.score, [], []
    for i, name in enumerate(spec.file.algorithms):
        own = [one for one in results if (one.cell.algorithm, one.cell.partition) == (name, partition) and one.measured]
        points = [one.points(score) for one in own]
        shared = sorted(set.intersection(*map(set, points))) if points else []
        found = [[one[round_] for one in points] for round_ in shared]
        if found:
            middle = [(_mean([x for x, _ in at]), _mean([y for _, y in at])) for at in found]
            band = [(x, min(y for _, y in at), max(y for _, y in at)) for (x, _), at in zip(middle, found, strict=True)]
            lines.append(Line(thin(middle), i, band=band if len(points) > 1 else ()))
            keys.append(line_key(i) + name)
    if not lines:
        return None
    svg = draw_curves(
        lines,
        salt=f"compare{number}",
        description=f"{score} over gradients of rows, on {partition}",
        log_beyond=math.inf if score.endswith("accuracy") else 20.0,
        percent=score.endswith("accuracy"),
        x="gradients of single rows, over all shards",
        inches=(9.0, 3.6),
    )
    title = f"{_sentence(score.replace('_', ' '))} over work"
    return Figure(title, keys, svg, "Lines: mean over seeds. Bands: smallest to largest.")


def _settings(spec: Spec, rows: Sequence[Row]) -> list[Table]:
    """Return tables of what each row and each partition changes of the base."""
    changes = [
        [line_key(i) + name, _rounds(rows, name), CODE.format(_yaml(row))]
        for i, (name, row) in enumerate(spec.file.algorithms.items())
    ]
    cuts = [[name, CODE.format(_yaml(spec.overrides(name)))] for name in spec.file.partitions]
    columns = [("Algorithm", "name"), ("Rounds", "n"), ("Settings", "any")]
    return [
        Table("What each row changes of the base", columns, changes),
        Table("Partitions", [("Partition", "name"), ("Settings", "any")], cuts),
    ]


def _rounds(rows: Sequence[Row], algorithm: str) -> str:
    found = sorted({row["rounds"] for row in rows if row["algorithm"] == algorithm and row["rounds"] is not None})
    return " to ".join(dict.fromkeys(f"{rounds:g}" for rounds in (*found[:1], *found[-1:])))


def _yaml(value: Any) -> str:
    """Write a section with a line per key."""
    if not value:
        return "(as the base)"
    lines = [yaml.safe_dump({key: inner}, default_flow_style=True, **_ONE_LINE) for key, inner in value.items()]
    return "\n".join(line.strip()[1:-1] for line in lines)  # without the braces around it


def _two_lines(cell: str) -> str:
    """Put the part of a cell that is in brackets on a line of its own."""
    first, bracket, rest = cell.partition(" (")
    return Markup('{}<br><span class="soft">{}</span>').format(first, rest.removesuffix(")")) if bracket else first


def _sentence(name: str) -> str:
    return name[:1].upper() + name[1:]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
