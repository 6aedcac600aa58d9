"""Runs a comparison from its file to its tables."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pisa_ray.cli.compare.cells import Cell, check, check_same, plan
from pisa_ray.cli.compare.display import Display
from pisa_ray.cli.compare.page import write_page
from pisa_ray.cli.compare.results import ENDED, CellResult, describe, read_result, summarise
from pisa_ray.cli.compare.run import Outcome, run_cells
from pisa_ray.cli.compare.tables import comma_separated, markdown
from pisa_ray.cli.comparison import Spec
from pisa_ray.engine.files import Folder
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.run_directory import RunDirectory

#: Seconds for which a resume waits for the runs of a killed driver to end.
WAIT = 60.0
#: The fields of result.json that are measured by a clock.
_CLOCK = ("seconds", "gradient_seconds")


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison.

    Attributes:
        status: "finished", "failed" (a cell failed, but did not just diverge) or "interrupted".
        rows: A row per algorithm and partition, as in table.json.
        cells: An entry per run, as in table.json.
        path: The folder with the tables, the page and the runs.
    """

    status: str
    rows: list[dict[str, Any]]
    cells: list[dict[str, Any]]
    path: Path

    @property
    def failures(self) -> list[str]:
        """A sentence for each cell that failed."""
        failed = [cell for cell in self.cells if cell["status"] not in ENDED]
        return [f"{cell['algorithm']}, {cell['partition']}, seed {cell['seed']}: {cell['message']}" for cell in failed]


def compare(
    spec: Spec | Mapping[str, Any], out: Path | str, *, resume: bool = False, progress: bool = True
) -> Comparison:
    """Run algorithms x partitions x seeds at equal work, and write tables, curves and a page about them.

    Args:
        spec: A comparison file, or its values, whose data paths are relative to the current folder.
        out: The folder of the comparison, which must not hold one already unless `resume` is set.
        resume: Whether to keep the cells that ended, and resume the others.
        progress: Whether to show progress on standard error.

    Returns:
        The tables and the status; an interrupted comparison writes no tables.

    Raises:
        ConfigError: If something in the file cannot be used; nothing has been started then.
    """
    spec = spec if isinstance(spec, Spec) else Spec.of(spec)
    out = Path(out).resolve()
    cells = plan(spec, out)
    with RunDirectory(out).lock():
        if not resume and _has_begun(out):
            raise ConfigError(f"{out} holds a comparison already: use --resume to go on with it, or another --out.")
        cells = check(spec, cells)
        _wait_for_others(cells)
        check_same(cells)
        found = {cell: result for cell in cells if (result := read_result(cell)) and result.outcome.status in ENDED}
        folder = Folder(str(out))

        def begin() -> None:
            whole = spec.file.written()
            folder.write("compare.yaml", yaml.safe_dump(whole, sort_keys=False, allow_unicode=True).encode())

        if not _run(spec, [cell for cell in cells if cell not in found], found, begin, progress=progress):
            return Comparison("interrupted", [], [], out)
        return _write(spec, folder, [found[cell] for cell in cells])


def _has_begun(out: Path) -> bool:
    """Return whether a comparison has finished a round; one that has not may be replaced."""
    runs = map(RunDirectory, out.glob("runs/*/*/seed-*"))
    return (out / "table.json").exists() or any(run.has_begun() for run in runs)


def _run(
    spec: Spec, cells: Sequence[Cell], found: dict[Cell, CellResult], begin: Callable[[], None], *, progress: bool
) -> bool:
    """Run cells and add their results to `found`; return False if the user asked to stop.

    `begin` is called when nothing can be refused any more.
    """
    score = spec.file.score
    with closing(Display(len(cells) + len(found), len(found), quiet=not progress)) as display:
        if not cells:
            begin()
            return True

        def ended(cell: Cell, outcome: Outcome) -> None:
            result = read_result(cell, outcome) or CellResult(cell, outcome)
            found[cell] = result
            value = result.last(score) if result.measured else None
            display.ended(str(cell), outcome.message or outcome.status if value is None else f"{score} {value:.4f}")

        return run_cells(cells, spec.file.concurrent, spec.file.ray_address, begin, ended, display.say)


def _write(spec: Spec, folder: Folder, results: Sequence[CellResult]) -> Comparison:
    file = spec.file
    rows = summarise(results, file.score)
    cells = [describe(result, file.score) for result in results]
    table = {"name": file.name, "score": file.score, "equal": file.equal, "rows": rows, "cells": cells}
    folder.write("table.json", json.dumps(table, indent=1, ensure_ascii=False).encode() + b"\n")
    folder.write("table.csv", comma_separated(rows).encode())
    folder.write("table.md", markdown(rows, file.score, file.equal).encode())
    clock = [{**_place(result), **{key: result.end.get(key) for key in _CLOCK}} for result in results]
    folder.write("times.csv", comma_separated(clock).encode())  # in a file of their own, as times always differ
    folder.write("index.html", write_page(spec, rows, results).encode("utf-8", errors="replace"))
    failed = any(result.outcome.status not in ENDED for result in results)
    return Comparison("failed" if failed else "finished", rows, cells, Path(folder.path))


def _place(result: CellResult) -> dict[str, Any]:
    return {key: getattr(result.cell, key) for key in ("algorithm", "partition", "seed")}


def _wait_for_others(cells: Sequence[Cell]) -> None:
    """Wait until no cell runs for a driver that has died, as Ray takes a moment to end its processes.

    Raises:
        ConfigError: If one still runs.
    """
    until = time.monotonic() + WAIT
    for cell in cells:
        while RunDirectory(cell.path).is_running():
            if time.monotonic() > until:
                raise ConfigError(f"{cell.path} is in use by another process: wait until it ends, or stop it.")
            time.sleep(0.1)
