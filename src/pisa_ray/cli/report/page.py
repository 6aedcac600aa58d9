"""Writes the page from its template."""

from collections.abc import Sequence
from pathlib import Path

from pisa_ray.cli.report.curves import LEGEND_RUNS, curves
from pisa_ray.cli.report.events import events
from pisa_ray.cli.report.markup import render
from pisa_ray.cli.report.numbers import badge, comparison, differences, headline
from pisa_ray.cli.report.partition import partition
from pisa_ray.cli.report.run import RecordedRun, read_runs
from pisa_ray.engine.local_files import write_file
from pisa_ray.errors import ConfigError


def write_report(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write one HTML page, which needs no other file and no network, about one run or several.

    Args:
        run_dirs: Directories of runs, finished or not. Several are drawn over each other and compared in a table.
        out: The file to write; by default `report.html` in the first directory.

    Returns:
        The path of the page.

    Raises:
        ConfigError: If no directory is given, one is not a run directory, or the page cannot be written.
    """
    if not run_dirs:
        raise ConfigError("No run directory was given: name at least one that 'pisa-ray train' has written.")
    runs = read_runs([Path(path) for path in run_dirs])
    target = Path(out) if out is not None else runs[0].path / "report.html"
    data = _page(runs).encode("utf-8", errors="replace")
    try:
        if target.is_dir():
            target = target / "report.html"
        target.parent.mkdir(parents=True, exist_ok=True)
        if target == out:  # even if that is a link, or not a regular file
            target.write_bytes(data)
        else:
            write_file(target, data)
    except OSError as error:
        raise ConfigError(f"{target} cannot be written ({error.strerror}): name another file with --out.") from error
    return target


def _page(runs: Sequence[RecordedRun]) -> str:
    parts = (badge, headline, comparison, differences, curves, partition, events)
    title = " / ".join(run.name for run in runs)
    asked = {part.__name__: part for part in parts}
    return render("report/report.jinja", title=title, runs=runs, words=_words, LEGEND_RUNS=LEGEND_RUNS, **asked)


def _words(run: RecordedRun) -> str:
    """Describe a run in a few words."""
    words = []
    for key in ("algorithm", "model", "partition"):
        value = run.config.get(key)
        if isinstance(value, dict) and (kind := value.get("kind") or value.get("factory")):
            words.append(f"{key} {kind}")
    if run.config.get("seed") is not None:
        words.append(f"seed {run.config['seed']}")
    return ", ".join(words)
