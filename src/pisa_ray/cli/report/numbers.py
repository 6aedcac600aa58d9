"""Makes tables of the final numbers of one run, or of several beside each other."""

from collections.abc import Callable, Iterator, Sequence

from markupsafe import Markup

from pisa_ray.cli.report.markup import CODE, Table, line_key
from pisa_ray.cli.report.run import RecordedRun
from pisa_ray.cli.report.text import count, duration, number, percent, short, shown, size


def badge(run: RecordedRun) -> Markup:
    """Return the status of a run, in its colour."""
    known = run.status if run.status in {"finished", "stopped", "interrupted", "failed"} else "unfinished"
    return Markup('<span class="status {}">{}</span>').format(known, run.status)


def headline(run: RecordedRun) -> list[tuple[str, str, str]]:
    """Return the main numbers of one run, each with its name, its value and a note."""
    items: list[tuple[str, str, str]] = []
    for key, name, show, choose in (
        ("test_accuracy", "Test accuracy", percent, max),
        ("validation_accuracy", "Validation accuracy", percent, max),
        ("test_loss", "Test loss", short, min),
        ("train_loss", "Train loss", short, min),
    ):
        points = run.points(key)
        if number(run.last(key)) is not None:
            best = run.best(key, choose)
            items.append((name, show(run.last(key)), f"best {show(best)}" if best is not None else ""))
        elif points:
            items.append((name, "-", f"{show(points[-1][1])} in round {points[-1][0]:.0f}"))
    planned = number(run.config.get("rounds"))
    items.append(("Rounds", short(run.rounds), f"of {planned:,.0f}" if planned is not None else ""))
    items.append(("Workers", short(run.last("workers")), count(len(run.shards), "shard") if run.shards else ""))
    items.append(("Time", duration(run.last("seconds")), ""))
    if run.gradient_share is not None:
        items.append(("Gradient share", percent(run.gradient_share, 0), "of the workers' time"))
    if run.result.get("weights_sha256"):
        items.append(("Weights, SHA-256", _digest(run), ""))
    return items


def _digest(run: RecordedRun) -> str:
    digest = run.result.get("weights_sha256")
    return Markup('<code title="{}">{}</code>').format(digest, str(digest)[:10]) if digest else "-"


def comparison(runs: Sequence[RecordedRun]) -> Table:
    """Return a table with a row of numbers for each run."""
    columns: list[tuple[str, str, Callable[[RecordedRun], str]]] = [
        ("Status", "", badge),
        ("Test accuracy", "n", lambda run: percent(run.last("test_accuracy"))),
        ("Best", "n", lambda run: percent(run.best("test_accuracy", max))),
        ("Test loss", "n", lambda run: short(run.last("test_loss"))),
        ("Train loss", "n", lambda run: short(run.last("train_loss"))),
        ("Rounds", "n", lambda run: short(run.rounds)),
        ("Workers", "n", lambda run: short(run.last("workers"))),
        ("Time", "n", lambda run: duration(run.last("seconds"))),
        ("Gradient share", "n", lambda run: percent(run.gradient_share, 0)),
        ("Bytes sent", "n", lambda run: size(run.last("bytes_sent"))),
        ("Weights", "n", _digest),
    ]
    rows = [[line_key(i) + run.name, *(show(run) for _, _, show in columns)] for i, run in enumerate(runs)]
    return Table("Final values, one row per run", [("Run", "name"), *(column[:2] for column in columns)], rows)


def differences(runs: Sequence[RecordedRun]) -> Table:
    """Return a table of the settings that are not the same in all runs."""
    flat = [dict(_flat(run.config)) for run in runs]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if key != "name"]
    different = [key for key in keys if len({one.get(key) for one in flat}) > 1]
    rows = [[CODE.format(key), *(shown(one.get(key, "-")) for one in flat)] for key in different]
    columns = [("Setting", "row"), *((line_key(i) + run.name, "any") for i, run in enumerate(runs))]
    return Table("Settings that differ", columns, rows)


def _flat(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif key:
        yield key, str(value)
