"""The page: what it is made of, in which order."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from pisa_ray.cli.report.curves import curves
from pisa_ray.cli.report.events import events
from pisa_ray.cli.report.markup import details, line_key, page
from pisa_ray.cli.report.numbers import badge, comparison, differences, headline
from pisa_ray.cli.report.partition import partition
from pisa_ray.cli.report.run import Run, read_runs
from pisa_ray.cli.report.text import count
from pisa_ray.engine.local_files import write_file
from pisa_ray.errors import ConfigError

_OPEN_LINES = 60  # a longer configuration starts closed


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
    runs = read_runs([Path(path) for path in run_dirs])
    target = Path(out) if out is not None else runs[0].path / "report.html"
    data = _page(runs).encode("utf-8", errors="replace")
    try:
        if target.is_dir():
            target = target / "report.html"
        target.parent.mkdir(parents=True, exist_ok=True)
        if target == out:  # also where that is a link, or no file
            target.write_bytes(data)
        else:
            write_file(target, data)
    except OSError as error:
        raise ConfigError(f"{target} cannot be written ({error.strerror}): name another file with --out.") from error
    return target


def _page(runs: Sequence[Run]) -> str:
    title = escape(" / ".join(run.name for run in runs))
    one = len(runs) == 1
    if one:
        body = [f"<h1>{title}</h1>", *_introduction(runs[0]), headline(runs[0])]
    else:
        body = [f"<h1>Comparison of {count(len(runs), 'run')}</h1>", comparison(runs), differences(runs)]
    body += ["<h2>Curves</h2>", curves(runs)]
    for i, run in enumerate(runs):
        if not one:
            body += [f"<h2>{line_key(i)}{escape(run.name)}</h2>", *_introduction(run)]
        level = "h2" if one else "h3"
        body += [f"<{level}>Partition</{level}>", partition(run, i)]
        body += [f"<{level}>Configuration</{level}>", _configuration(run)]
        body += [f"<{level}>Events</{level}>", events(run)]
    return page(title, "\n".join(body))


def _introduction(run: Run) -> list[str]:
    """How the run ended, what it is in a few words, and what is not known of it."""
    words = []
    for key in ("algorithm", "model", "partition"):
        value = run.config.get(key)
        if isinstance(value, dict) and (kind := value.get("kind") or value.get("factory")):
            words.append(f"{key} {kind}")
    if run.config.get("seed") is not None:
        words.append(f"seed {run.config['seed']}")
    parts = [f'<p>{badge(run)} <span class="soft">{escape(", ".join(words))}</span></p>']
    if message := run.result.get("message"):
        parts.append(f"<p>{escape(str(message))}</p>")
    if run.notes:
        parts.append(f'<ul class="notes soft">{"".join(f"<li>{escape(note)}</li>" for note in run.notes)}</ul>')
    return parts


def _configuration(run: Run) -> str:
    block = f'<pre tabindex="0" aria-label="config.yaml">{escape(run.config_text)}</pre>'
    lines = run.config_text.count("\n") + 1
    shown = block if lines <= _OPEN_LINES else details(f"config.yaml, {lines} lines", block)
    return f'<div class="card long">{shown}</div>'
