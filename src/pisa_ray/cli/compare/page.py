"""index.html: tables, curves of the score over work, and the settings of every row, in one file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import yaml

from pisa_ray.cli.compare.results import CellResult
from pisa_ray.cli.compare.tables import Row, cells_of, headings
from pisa_ray.cli.comparison import Spec
from pisa_ray.cli.report.figures import Line, draw_curves, thin
from pisa_ray.cli.report.markup import details, legend, line_key, page, table
from pisa_ray.cli.report.text import count

_EQUAL = {
    "gradients": "every algorithm computes as many gradients of rows as {rounds} of one mini-batch a shard",
    "bytes": "every algorithm sends as many vectors as {rounds} of one vector a shard",
    "rounds": "every algorithm runs {rounds}, whatever they cost",
}
_CAPTION = "Mean ± standard deviation (smallest to largest) over the seeds that came to their end"
#: Of YAML that is written as people write it.
_ONE_LINE: dict[str, Any] = {"width": 10_000, "allow_unicode": True, "sort_keys": False}


def write_page(spec: Spec, rows: Sequence[Row], results: Sequence[CellResult]) -> str:
    """The page, which needs no other file and no network."""
    file = spec.file
    name = escape(file.name or "Comparison")
    seeds = count(len(file.seeds), "seed")
    algorithms, partitions = count(len(file.algorithms), "algorithm"), count(len(file.partitions), "partition")
    rounds = spec.config(None, next(iter(file.partitions)), file.seeds[0]).rounds
    body = [
        f"<h1>{name}</h1>",
        f'<p class="soft">{algorithms}, {partitions}, {seeds}. At equal {file.equal}: '
        f"{_EQUAL[file.equal].format(rounds=count(rounds, 'round'))}.</p>",
    ]
    for i, partition in enumerate(file.partitions):
        own = [row for row in rows if row["partition"] == partition]
        body += [f"<h2>{escape(partition)}</h2>", _table(spec, own, rows), _figure(spec, partition, results, i)]
    body += _lost(results)
    body += ["<h2>Settings</h2>", _settings(spec, rows)]
    return page(name, "\n".join(body))


def _table(spec: Spec, own: Sequence[Row], rows: Sequence[Row]) -> str:
    """A partition's numbers, in the colours of its curves."""
    colours = {name: i for i, name in enumerate(spec.file.algorithms)}
    columns = [("Algorithm", "name"), *((escape(_sentence(name)), "n") for name in headings(rows))]
    lines = [
        [line_key(colours[row["algorithm"]]) + escape(row["algorithm"]), *map(_two_lines, cells_of(row))] for row in own
    ]
    return f'<div class="card">{table(_CAPTION, columns, lines)}</div>'


def _figure(spec: Spec, partition: str, results: Sequence[CellResult], number: int) -> str:
    """The score over work: a line an algorithm, and a band from the smallest to the largest of its seeds."""
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
            keys.append(line_key(i) + escape(name))
    if not lines:
        return '<p class="card">No curve: no run came to its end.</p>'
    svg = draw_curves(
        lines,
        salt=f"compare{number}",
        description=f"{score} over gradients of rows, on {partition}",
        log_beyond=math.inf if score.endswith("accuracy") else 20.0,
        percent=score.endswith("accuracy"),
        x="gradients of single rows, over all shards",
        inches=(9.0, 3.6),
    )
    return (
        f'<figure class="card"><h3>{escape(_sentence(score.replace("_", " ")))} over work</h3>{legend(keys)}{svg}'
        "<figcaption>Lines: mean over seeds. Bands: smallest to largest.</figcaption></figure>"
    )


def _lost(results: Sequence[CellResult]) -> list[str]:
    """What is to say of runs that did not come to their ends."""
    said = [
        f"<li><b>{escape(str(one.cell))}</b>: {escape(one.outcome.status)}. {escape(one.outcome.message)}</li>"
        for one in results
        if not one.measured
    ]
    return (
        ["<h2>Diverged and failed</h2>", f'<div class="card"><ul class="notes">{"".join(said)}</ul></div>']
        if said
        else []
    )


def _settings(spec: Spec, rows: Sequence[Row]) -> str:
    file = spec.file
    own = [(name, escape(_yaml(row)), _rounds(rows, name)) for name, row in file.algorithms.items()]
    algorithms = table(
        "What each row changes of the base",
        [("Algorithm", "name"), ("Rounds", "n"), ("Settings", "any")],
        [[line_key(i) + escape(name), rounds, f"<code>{text}</code>"] for i, (name, text, rounds) in enumerate(own)],
    )
    cuts = [[escape(name), f"<code>{escape(_yaml(spec.overrides(name)))}</code>"] for name in file.partitions]
    partitions = table("Partitions", [("Partition", "name"), ("Settings", "any")], cuts)
    whole = file.written()
    base = details("The whole file", f"<pre>{escape(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))}</pre>")
    common = f"<h3>Base</h3><pre>{escape(_yaml(file.base))}</pre>{base}"
    return "".join(f'<div class="card">{part}</div>' for part in (algorithms, partitions, common))


def _rounds(rows: Sequence[Row], algorithm: str) -> str:
    found = sorted({row["rounds"] for row in rows if row["algorithm"] == algorithm and row["rounds"] is not None})
    return " to ".join(dict.fromkeys(f"{rounds:g}" for rounds in (*found[:1], *found[-1:])))


def _yaml(value: Any) -> str:
    """Key by key, each on one line."""
    if not value:
        return "(as the base)"
    lines = [yaml.safe_dump({key: inner}, default_flow_style=True, **_ONE_LINE) for key, inner in value.items()]
    return "\n".join(line.strip()[1:-1] for line in lines)  # without the braces around it


def _two_lines(cell: str) -> str:
    """What is in brackets, below the rest."""
    first, bracket, rest = cell.partition(" (")
    return escape(first) + (f'<br><span class="soft">{escape(rest.removesuffix(")"))}</span>' if bracket else "")


def _sentence(name: str) -> str:
    return name[:1].upper() + name[1:]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
