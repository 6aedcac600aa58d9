"""The report page: one self-contained HTML file about one run, or about several beside each other."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml

from pisa_ray.cli.report_figures import (
    DASHES,
    LINE_COLOURS,
    Line,
    css_colour,
    draw_curves,
    draw_partition,
    label_colours,
    thin,
)
from pisa_ray.cli.report_style import STYLE
from pisa_ray.errors import ConfigError

_OPEN_ROWS = 20  # a table with more rows starts closed
_EVENT_ROWS = 400  # events shown at most: the first and the last half
_MATRIX_LABELS = 12  # with more labels the partition's table names each shard's largest ones only
_NAMED_LABELS = 4
_LEGEND_RUNS = 5  # with more runs the figures leave their names to the first table
_TEXT_LIMIT = 2000  # characters shown of one event field
_NESTING = 8
_EVENT_COLUMNS = ("time", "round", "kind", "worker", "pid", "node")

Row = Mapping[str, object]


@dataclass(frozen=True)
class _Chart:
    """What one figure shows: metrics by key and name, and what a healthy one looks like."""

    title: str
    series: tuple[tuple[str, str], ...]
    caption: str
    log_beyond: float = 2.0
    percent: bool = False
    expected: bool = True  # say so where it is missing


_CHARTS = (
    _Chart(
        "Accuracy",
        (("test_accuracy", "test"), ("validation_accuracy", "validation")),
        "Healthy: rises, then levels off. A saw-tooth means that sigma is too small.",
        log_beyond=math.inf,
        percent=True,
    ),
    _Chart(
        "Loss",
        (("train_loss", "train"), ("test_loss", "test"), ("validation_loss", "validation")),
        "Healthy: all fall. Test rising while train falls is overfitting; an explosion asks for a larger sigma or rho.",
        log_beyond=20.0,
    ),
    _Chart(
        "Penalty sigma",
        (("sigma", "sigma"),),
        "Healthy: constant, or growing slowly. Growing too fast freezes the weights before they arrive.",
    ),
    _Chart(
        "Primal residual",
        (("primal_residual", "primal residual"),),
        "How far the shards' copies are from the consensus. Healthy: falls. Flat while the loss stalls: "
        "sigma is too small for the noise.",
    ),
    _Chart(
        "Dual residual",
        (("dual_residual", "dual residual"),),
        "How far the duals are from the negative gradients. Healthy: falls to the noise of the mini-batches. "
        "Growing: duals are lost or scaled.",
    ),
    _Chart(
        "Consensus residual",
        (("consensus_residual", "consensus residual"),),
        "The stationarity error, up to noise. Healthy: falls. High while the weights no longer move: "
        "frozen, so grow sigma less often (k0) or less (gamma).",
    ),
    _Chart(
        "Consensus move",
        (("consensus_move", "consensus move"), ("sigma_primal", "sigma * primal residual")),
        "Healthy: falls, and stays within a factor of ten of sigma * primal residual. "
        "That one ten times larger: grow sigma; ten times smaller: stop growing.",
    ),
    _Chart(
        "Augmented Lagrangian",
        (("augmented_lagrangian", "augmented Lagrangian"),),
        "Healthy: falls between growths of sigma. Repeated rises with full gradients: sigma and rho are too small.",
        log_beyond=20.0,
        expected=False,
    ),
    _Chart(
        "Momentum",
        (("momentum", "momentum"),),
        "Healthy: about 0.5 to 0.99. Near 0: plain gradient steps of 1/sigma. Near 1: very slow duals.",
        log_beyond=math.inf,
        expected=False,
    ),
    _Chart(
        "Workers",
        (("workers", "workers"),),
        "Workers may join, leave or die; the result does not depend on them.",
        log_beyond=math.inf,
        expected=False,
    ),
)


@dataclass(frozen=True)
class _Run:
    """A run directory as far as it could be read; whatever is absent is said in `notes`."""

    path: Path
    name: str
    config_text: str
    config: Row
    rows: Sequence[Row]
    result: Row
    events: Sequence[Row]
    shards: Sequence[Row]
    notes: Sequence[str]

    @property
    def status(self) -> str:
        return str(self.result.get("status") or ("unfinished" if not self.result else "unknown"))

    def last(self, key: str) -> object:
        """A final value: from the result, else from the last evaluated round."""
        value = self.result.get(key)
        return value if value is not None else self.rows[-1].get(key) if self.rows else None

    def best(self, key: str, choose: Callable[[Iterable[float]], float]) -> float | None:
        """A best value: from the result, else from all evaluated rounds."""
        value = _number(self.result.get(f"best_{key}"))
        values = [y for _, y in self.points(key)]
        return value if value is not None else choose(values) if values else None

    def points(self, key: str) -> list[tuple[float, float]]:
        """The finite values of a metric, by round."""
        found = ((_number(row["round"]), _number(row.get(key))) for row in self.rows)
        return [(x, y) for x, y in found if x is not None and y is not None]


def write_report(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Writes one HTML page, which needs no other file and no network, about one run or several.

    Args:
        run_dirs: directories of runs, finished or not. Several are drawn over each other and compared in a table.
        out: the file to write; by default `report.html` in the first directory.

    Returns:
        The path of the page.

    Raises:
        ConfigError: no directory was given, one is not a run directory, or the page cannot be written.
    """
    if not run_dirs:
        raise ConfigError("No run directory was given: name at least one that 'pisa-ray train' has written.")
    runs = _distinct([_read_run(Path(path)) for path in run_dirs])
    target = Path(out) if out is not None else runs[0].path / "report.html"
    if target.is_dir():
        target = target / "report.html"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_page(runs).encode("utf-8", errors="replace"))
    except OSError as error:
        raise ConfigError(f"{target} cannot be written ({error.strerror}): name another file with --out.") from error
    return target


# Reading


def _read_run(path: Path) -> _Run:
    if not (path / "config.yaml").is_file():
        raise ConfigError(
            f"{path} is not a run directory (it has no config.yaml): name one that 'pisa-ray train' has written."
        )
    notes: list[str] = []
    config_text = (path / "config.yaml").read_text(encoding="utf-8", errors="replace")
    try:
        config = yaml.safe_load(config_text)
    except yaml.YAMLError:
        config = None
    if not isinstance(config, dict):
        notes.append("config.yaml cannot be read as settings; its text is shown as it is.")
        config = {}
    result = _read_json(path / "result.json", notes, "the run is still going, or was ended before it could write one")
    partition = _read_json(path / "partition.json", notes, "how the rows lie on the shards is not known")
    shards = partition.get("shards")
    shards = [shard for shard in shards if isinstance(shard, dict)] if isinstance(shards, list) else []
    if partition and not shards:
        notes.append("partition.json names no shards.")
    rows = {}
    for row in _read_lines(path / "metrics.jsonl", notes):
        if (at := _number(row.get("round"))) is not None:
            sigma, primal = _number(row.get("sigma")), _number(row.get("primal_residual"))
            product = None if sigma is None or primal is None else sigma * primal
            rows[at] = {**row, "sigma_primal": product}
    metrics = [rows[at] for at in sorted(rows)]
    if not metrics and (path / "metrics.jsonl").is_file():
        notes.append("metrics.jsonl holds no evaluated round yet.")
    events = _read_lines(path / "events.jsonl", notes)
    name = str(result.get("name") or config.get("name") or path.resolve().name)
    run = _Run(path, name, config_text, config, metrics, result, events, shards, notes)
    if metrics and not run.points("test_accuracy"):
        notes.append("No test accuracy: the run has no test data, or its evaluation gives no accuracy.")
    return run


def _read_json(path: Path, notes: list[str], meaning: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        notes.append(f"No {path.name}: {meaning}.")
        return {}
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        notes.append(f"{path.name} cannot be read: it is not one JSON object.")
        return {}
    return value


def _read_lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        notes.append(f"No {path.name}.")
        return []
    found, broken = [], 0
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            found.append(value)
        else:
            broken += 1
    if broken:
        notes.append(
            f"{path.name}: {_count(broken, 'line')} cannot be read and {'is' if broken == 1 else 'are'} left out."
        )
    return found


def _distinct(runs: Sequence[_Run]) -> list[_Run]:
    """Runs of one name are told apart by their directories."""
    names = Counter(run.name for run in runs)
    return [_Run(**{**vars(run), "name": f"{run.name} ({run.path})"}) if names[run.name] > 1 else run for run in runs]


# The page


def _page(runs: Sequence[_Run]) -> str:
    title = escape(" / ".join(run.name for run in runs))
    one = len(runs) == 1
    body = [f"<h1>{title if one else 'Comparison of ' + _count(len(runs), 'run')}</h1>"]
    if one:
        body += [_status(runs[0]), _notes(runs[0]), _headline(runs[0])]
    else:
        body += [_comparison(runs), _differences(runs)]
    body += ["<h2>Curves</h2>", *_curves(runs)]
    for i, run in enumerate(runs):
        if not one:
            body += [f"<h2>{_swatch(i)}{escape(run.name)}</h2>", _status(run), _notes(run)]
        level = "h2" if one else "h3"
        body += [f"<{level}>Partition</{level}>", _partition(run, i)]
        body += [f"<{level}>Configuration</{level}>", _configuration(run)]
        body += [f"<{level}>Events</{level}>", _events(run)]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title} - pisa_ray report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _status(run: _Run) -> str:
    known = run.status if run.status in {"finished", "stopped", "interrupted", "failed"} else "unfinished"
    message = run.result.get("message")
    said = f"\n<p>{escape(str(message))}</p>" if message else ""
    return (
        f'<p><span class="status {known}">{escape(run.status)}</span> '
        f'<span class="soft">{escape(_kinds(run))}</span></p>{said}'
    )


def _kinds(run: _Run) -> str:
    """The run in a few words: algorithm, model, partition, seed."""
    words = []
    for key in ("algorithm", "model", "partition"):
        value = run.config.get(key)
        if isinstance(value, dict) and (kind := value.get("kind") or value.get("factory")):
            words.append(f"{key} {kind}")
    if run.config.get("seed") is not None:
        words.append(f"seed {run.config['seed']}")
    return ", ".join(words)


def _notes(run: _Run) -> str:
    if not run.notes:
        return ""
    return '<ul class="notes soft">' + "".join(f"<li>{escape(note)}</li>" for note in run.notes) + "</ul>"


def _headline(run: _Run) -> str:
    items: list[tuple[str, str, str]] = []
    for key, name, choose in (
        ("test_accuracy", "Test accuracy", max),
        ("validation_accuracy", "Validation accuracy", max),
        ("test_loss", "Test loss", min),
        ("train_loss", "Train loss", min),
    ):
        show = _percent if "accuracy" in key else _short
        if (value := _number(run.last(key))) is not None:
            best = run.best(key, choose)
            items.append((name, show(value), f"best {show(best)}" if best is not None else ""))
        elif points := run.points(key):
            items.append((name, "-", f"{show(points[-1][1])} in round {points[-1][0]:.0f}"))
    rounds = run.last("rounds") if run.result else run.last("round")
    planned = _number(run.config.get("rounds"))
    items.append(("Rounds", _short(rounds), f"of {planned:,.0f}" if planned is not None else ""))
    items.append(("Workers", _short(run.last("workers")), _count(len(run.shards), "shard") if run.shards else ""))
    items.append(("Time", _duration(run.last("seconds")), ""))
    if (share := _gradient_share(run)) is not None:
        items.append(("Gradient share", _percent(share, 0), "of the time"))
    cells = [
        f"<div><dt>{name}</dt><dd>{escape(value)}{f'<small>{escape(extra)}</small>' if extra else ''}</dd></div>"
        for name, value, extra in items
    ]
    if digest := run.result.get("weights_sha256"):
        cells.append(f"<div><dt>Weights, SHA-256</dt><dd>{_digest(digest)}</dd></div>")
    return f'<dl class="numbers">{"".join(cells)}</dl>'


def _gradient_share(run: _Run) -> float | None:
    gradient, seconds = _number(run.result.get("gradient_seconds")), _number(run.result.get("seconds"))
    return gradient / seconds if gradient is not None and seconds else None


def _digest(digest: object) -> str:
    text = escape(str(digest))
    return f'<code title="{text}">{escape(str(digest)[:10])}</code>'


def _comparison(runs: Sequence[_Run]) -> str:
    columns: list[tuple[str, Callable[[_Run], str]]] = [
        ("Test accuracy", lambda run: _percent(run.last("test_accuracy"))),
        ("Best", lambda run: _percent(run.best("test_accuracy", max))),
        ("Test loss", lambda run: _short(run.last("test_loss"))),
        ("Train loss", lambda run: _short(run.last("train_loss"))),
        ("Rounds", lambda run: _short(run.last("rounds") if run.result else run.last("round"))),
        ("Workers", lambda run: _short(run.last("workers"))),
        ("Time", lambda run: _duration(run.last("seconds"))),
        ("Gradient share", lambda run: _percent(_gradient_share(run), 0)),
        ("Bytes sent", lambda run: _bytes(run.last("bytes_sent"))),
    ]
    head = '<th scope="col">Run</th><th scope="col">Status</th>'
    head += "".join(f'<th scope="col" class="n">{name}</th>' for name, _ in columns)
    head += '<th scope="col" class="n">Weights</th>'
    rows = []
    for i, run in enumerate(runs):
        known = run.status if run.status in {"finished", "stopped", "interrupted", "failed"} else "unfinished"
        cells = "".join(f'<td class="n">{escape(show(run))}</td>' for _, show in columns)
        digest = run.result.get("weights_sha256")
        rows.append(
            f'<tr><th scope="row" class="name">{_swatch(i)}{escape(run.name)}</th>'
            f'<td><span class="status {known}">{escape(run.status)}</span></td>{cells}'
            f'<td class="n">{_digest(digest) if digest else "-"}</td></tr>'
        )
    return _table("Final values, one row a run", head, rows)


def _differences(runs: Sequence[_Run]) -> str:
    """The settings that are not the same in all runs."""
    flat = [dict(_flatten(run.config)) for run in runs]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if key != "name"]
    different = [key for key in keys if len({one.get(key) for one in flat}) > 1]
    if not different:
        return '<p class="soft">All runs have the same settings, but for their names.</p>'
    head = '<th scope="col">Setting</th>' + "".join(
        f'<th scope="col">{_swatch(i)}{escape(run.name)}</th>' for i, run in enumerate(runs)
    )
    rows = []
    for key in different:
        cells = "".join(f'<td class="any">{escape(one.get(key, "-"))}</td>' for one in flat)
        rows.append(f'<tr><th scope="row"><code>{escape(key)}</code></th>{cells}</tr>')
    return _table("Settings that differ", head, rows)


def _flatten(value: object, key: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value and depth < _NESTING:
        for name, inner in value.items():
            yield from _flatten(inner, f"{key}.{name}" if key else str(name), depth + 1)
    elif key:
        yield key, str(value)[:_TEXT_LIMIT]


def _curves(runs: Sequence[_Run]) -> Iterator[str]:
    if not any(run.rows for run in runs):
        yield '<p class="card">No curves: there is no evaluated round yet.</p>'
        return
    figures, missing = [], []
    for number, chart in enumerate(_CHARTS):
        drawn = [series for series in chart.series if any(run.points(series[0]) for run in runs)]
        if drawn and not (chart.title == "Workers" and all(_constant(run.points("workers")) for run in runs)):
            figures.append(_figure(runs, chart, drawn, number))
        elif chart.expected and not drawn:
            missing.append(chart.title[0].lower() + chart.title[1:])
    if len(runs) > _LEGEND_RUNS:
        yield '<p class="soft">The colours of the runs are those of the first table.</p>'
    yield f'<div class="charts">{"".join(figures)}</div>'
    if missing:
        yield f'<p class="soft">Not recorded, so not drawn: {", ".join(missing)}.</p>'


def _constant(points: Sequence[tuple[float, float]]) -> bool:
    return len({y for _, y in points}) <= 1


def _figure(runs: Sequence[_Run], chart: _Chart, drawn: Sequence[tuple[str, str]], number: int) -> str:
    one = len(runs) == 1
    lines, legend, gaps = [], [], 0
    for i, run in enumerate(runs):
        found = [run.points(key) for key, _ in drawn]
        gaps += max((len(run.rows) - len(points) for points in found if points), default=0)
        for j, ((_, name), points) in enumerate(zip(drawn, found, strict=True)):
            if points:
                lines.append(Line(thin(points), colour=j if one else i, dash=j))
            if one and len(drawn) > 1:
                legend.append(f"<li>{_swatch(j, j)}{name}</li>")
        if 1 < len(runs) <= _LEGEND_RUNS:
            legend.append(f"<li>{_swatch(i)}{escape(run.name)}</li>")
    if not one and len(drawn) > 1:
        legend += [f"<li>{_swatch(None, j)}{name}</li>" for j, (_, name) in enumerate(drawn)]
    said = f" No finite value in {_count(gaps, 'evaluated round')}: not drawn." if gaps else ""
    names = ", ".join(name for _, name in drawn)
    who = "" if one else " of " + ", ".join(run.name for run in runs)
    svg = draw_curves(
        lines,
        salt=f"chart{number}",
        description=escape(f"{chart.title} over rounds ({names}){who}"),
        log_beyond=chart.log_beyond,
        percent=chart.percent,
    )
    key = f'<ul class="legend">{"".join(legend)}</ul>' if legend else ""
    return (
        f'<figure class="card"><h3>{chart.title}</h3>{key}{svg}<figcaption>{chart.caption}{said}</figcaption></figure>'
    )


def _swatch(colour: int | None, dash: int = 0) -> str:
    """A short piece of a line, as the figures draw it."""
    paint = "var(--soft)" if colour is None else css_colour(colour)
    width = 2.5 if colour is None or colour < len(LINE_COLOURS) else 4.5
    dashes = f";stroke-dasharray:{','.join(str(2 * d) for d in DASHES[dash])}" if dash else ""
    style = f"stroke:{paint};stroke-width:{width};fill:none{dashes}"
    return f'<svg class="key" aria-hidden="true" viewBox="0 0 26 10"><path d="M0 5H26" style="{style}"/></svg>'


def _partition(run: _Run, index: int) -> str:
    if not run.shards:
        return '<p class="card">Not known: there is no partition.json that names shards.</p>'
    counts = [_labels(shard) for shard in run.shards]
    rows = [
        int(n) if (n := _number(shard.get("rows"))) is not None else sum(labels.values())
        for shard, labels in zip(run.shards, counts, strict=True)
    ]
    labels = sorted({label for one in counts for label in one}, key=_label_order)
    about = f"{_count(len(rows), 'shard')}, {_count(sum(rows), 'row')}"
    about += f", {_count(len(labels), 'label')}" if labels else ", no labels recorded"
    about += f"; smallest shard {min(rows):,}, largest {max(rows):,} rows."
    stacks = [[one.get(label, 0) for label in labels] for one in counts] if labels else [[n] for n in rows]
    svg = draw_partition(stacks, salt=f"partition{index}", description=escape(f"Rows of each shard by label: {about}"))
    key = _label_legend(labels)
    table = _partition_table(rows, counts, labels)
    return (
        f'<div class="card long"><p>{about}</p><figure><div class="scroll wide" tabindex="0" role="group" '
        f'aria-label="Partition figure">{svg}</div>{key}</figure>{table}</div>'
    )


def _labels(shard: Row) -> dict[str, int]:
    labels = shard.get("labels")
    if not isinstance(labels, dict):
        return {}
    return {str(k): int(n) for k, v in labels.items() if (n := _number(v)) is not None and n > 0}


def _label_order(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def _label_legend(labels: Sequence[str]) -> str:
    if not labels:
        return ""
    items = "".join(
        '<li><svg class="key" aria-hidden="true" viewBox="0 0 26 10"><path d="M6 0h14v10H6z" '
        f'style="fill:{colour}"/></svg>{escape(label)}</li>'
        for label, colour in zip(labels, label_colours(len(labels)), strict=True)
    )
    legend = f'<ul class="legend">{items}</ul>'
    return legend if len(labels) <= _OPEN_ROWS else _details(f"Colours of the {len(labels)} labels", legend)


def _partition_table(rows: Sequence[int], counts: Sequence[Mapping[str, int]], labels: Sequence[str]) -> str:
    matrix = len(labels) <= _MATRIX_LABELS
    head = '<th scope="col">Shard</th><th scope="col" class="n">Rows</th>'
    if matrix:
        head += "".join(f'<th scope="col" class="n">{escape(label)}</th>' for label in labels)
    else:
        head += '<th scope="col" class="n">Labels</th><th scope="col">Most frequent (rows)</th>'
    body = []
    for shard, (n, one) in enumerate(zip(rows, counts, strict=True)):
        if matrix:
            cells = "".join(
                f'<td class="n">{one[label]:,}</td>' if label in one else '<td class="n none">-</td>'
                for label in labels
            )
        else:
            top = sorted(one, key=lambda label: -one[label])
            named = ", ".join(f"{label} ({one[label]:,})" for label in top[:_NAMED_LABELS])
            more = f", {len(top) - _NAMED_LABELS} more" if len(top) > _NAMED_LABELS else ""
            cells = f'<td class="n">{len(one)}</td><td class="any">{escape(named)}{more}</td>'
        body.append(f'<tr><th scope="row">{shard}</th><td class="n">{n:,}</td>{cells}</tr>')
    return _table("Rows of each shard, by label", head, body, card=False)


def _configuration(run: _Run) -> str:
    block = f'<pre tabindex="0" aria-label="config.yaml">{escape(run.config_text)}</pre>'
    lines = run.config_text.count("\n") + 1
    return f'<div class="card long">{block if lines <= 60 else _details(f"config.yaml, {lines} lines", block)}</div>'


def _events(run: _Run) -> str:
    if not run.events:
        return '<p class="card">None recorded.</p>'
    kinds = Counter(_text(event.get("kind")) for event in run.events)
    about = f"{_count(len(run.events), 'event')}: " + ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())
    events = list(enumerate(run.events))
    skipped = len(events) - _EVENT_ROWS
    if skipped > 0:
        events = events[: _EVENT_ROWS // 2] + events[-_EVENT_ROWS // 2 :]
    head = "".join(
        f'<th scope="col"{" class=n" if key in {"round", "worker", "pid"} else ""}>{key}</th>' for key in _EVENT_COLUMNS
    )
    head += '<th scope="col">details</th>'
    body: list[str] = []
    for place, (_, event) in enumerate(events):
        if skipped > 0 and place == _EVENT_ROWS // 2:
            body.append(
                f'<tr><td colspan="7" class="none">{skipped:,} events between are in events.jsonl only</td></tr>'
            )
        cells = "".join(
            f"<td{' class=n' if key in {'round', 'worker', 'pid'} else ''}>{escape(_text(event.get(key)))}</td>"
            for key in _EVENT_COLUMNS
        )
        rest = ", ".join(f"{key}={_text(value)}" for key, value in event.items() if key not in _EVENT_COLUMNS)
        body.append(f'<tr>{cells}<td class="any">{escape(rest)}</td></tr>')
    return f'<div class="card long"><p>{escape(about)}</p>{_table("Events, in order", head, body, card=False)}</div>'


# Pieces


def _table(caption: str, head: str, rows: Sequence[str], *, card: bool = True) -> str:
    table = (
        f'<div class="scroll{" tall" if len(rows) > _OPEN_ROWS else ""}" tabindex="0" role="group" '
        f'aria-label="{caption}"><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>\n<tbody>'
        + "\n".join(rows)
        + "</tbody></table></div>"
    )
    if len(rows) > _OPEN_ROWS:
        table = _details(f"{caption}: {len(rows):,} rows", table)
    return f'<div class="card">{table}</div>' if card else table


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _number(value: object) -> float | None:
    """The value as a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _text(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT] + " …"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _short(value: object) -> str:
    number = _number(value)
    if number is None:
        return "-"
    return f"{number:,.0f}" if number == int(number) and abs(number) < 1e15 else f"{number:.4g}"


def _percent(value: object, digits: int = 2) -> str:
    number = _number(value)
    return "-" if number is None else f"{100 * number:.{digits}f} %"


def _duration(value: object) -> str:
    seconds = _number(value)
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _bytes(value: object) -> str:
    number = _number(value)
    if number is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"
