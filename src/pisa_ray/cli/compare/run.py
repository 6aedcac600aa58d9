"""Runs cells on a Ray cluster: each is a task, but those with workers run one after another from the driver."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from pisa_ray.actors import RayResources, ray_session
from pisa_ray.actors.connection import GONE, check_ray
from pisa_ray.actors.imports import import_from
from pisa_ray.actors.session import room
from pisa_ray.cli.compare.cells import Cell, opened
from pisa_ray.cli.config import checked
from pisa_ray.cli.train import train
from pisa_ray.errors import ConfigError, NonFiniteError, PisaError, RayLostError, StoppedWaitingError
from pisa_ray.named import current_folder, given_in
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.interrupt import StopRequests
from pisa_ray.trainer.run_directory import RunDirectory

#: Seconds between two checks whether the user asked to stop.
_LOOK = 0.2


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Attributes:
        status: "finished", "stopped", "diverged", "failed" or "interrupted".
        message: Why it diverged or failed.
    """

    status: str
    message: str = ""


def run_cells(
    cells: Sequence[Cell],
    concurrent: int | None,
    address: str | None,
    begin: Callable[[], None],
    ended: Callable[[Cell, Outcome], None],
    say: Callable[[str], None],
) -> bool:
    """Run cells to their ends.

    Args:
        cells: The cells to run; a run in a cell's folder is resumed.
        concurrent: The number of tasks at a time; None: as many as there is room for.
        address: The address of the cluster, as in ray.init.
        begin: Called before the first cell runs.
        ended: Called with every cell that has ended.
        say: Called with lines for the user.

    Returns:
        Whether all cells were run; False if the user asked to stop, after which the comparison can be resumed.

    Raises:
        ConfigError: If there is no cluster at the address, or it has no room for a cell.
    """
    ours = not ray.is_initialized() and not (address or os.environ.get("RAY_ADDRESS"))
    least = max(*(_cores(cell.config) for cell in cells), _at_once(cells, concurrent))
    most = sum(_cores(cell.config) for cell in cells)
    each, most = RayResources(), max(least, most)
    with StopRequests() as stop, ray_session(least, most, each, address, stop, hanging=lambda text: None):
        alone = [cell for cell in cells if cell.alone]
        _check_room(alone, say, refuse=ours)
        begin()
        if not _in_tasks(alone, concurrent or len(cells), stop, ended):
            return False
        for cell in cells:
            if stop():
                return False
            if not cell.alone:
                outcome = attempt(cell.config, cell.path)
                if outcome.status == "interrupted":
                    return False
                ended(cell, outcome)
    return True


def attempt(config: Config, path: Path) -> Outcome:
    """Run or resume a cell in this process, and return errors as its outcome."""
    try:
        data = opened(config.data, keep=True) if config.scaling.most == 0 else None
        result = train(config, path, resume=RunDirectory(path).has_begun(), progress=False, data=data)
    except NonFiniteError as error:
        return Outcome("diverged", str(error))
    except StoppedWaitingError as error:
        return Outcome("interrupted", str(error))
    except RayLostError:  # the other cells need Ray, too
        raise
    except PisaError as error:
        return Outcome("failed", str(error))
    except Exception as error:  # a crash of one cell must not end the others
        return Outcome("failed", f"{type(error).__name__}: {error}")
    return Outcome(result.status)


@ray.remote
def _task(values: dict[str, Any], path: str, folders: list[str], folder: str) -> Outcome:
    import_from(folders)
    given_in(folder)
    return attempt(checked(values, Path(path)), Path(path))


def _in_tasks(
    cells: Sequence[Cell], concurrent: int, stop: Callable[[], bool], ended: Callable[[Cell, Outcome], None]
) -> bool:
    """Run cells as tasks; after a request to stop, those under way finish their round and save a checkpoint."""
    waiting, running = deque(cells), dict[Any, Cell]()
    cancelled = False
    while running or (waiting and not stop()):
        while waiting and len(running) < concurrent and not stop():
            cell = waiting.popleft()
            running[_submit(cell)] = cell
        done, _ = ray.wait(list(running), timeout=_LOOK) if running else ([], [])
        check_ray()  # else cells that were lost with Ray would count as failed
        for ref in done:
            cell, outcome = running.pop(ref), _outcome(ref)
            if outcome.status == "interrupted":
                waiting.append(cell)  # if a node leaves, the cell goes on elsewhere
            else:
                ended(cell, outcome)
        if stop() and not cancelled:
            cancelled = True
            for ref in running:
                ray.cancel(ref)  # raises KeyboardInterrupt in the task
    return not waiting


def _submit(cell: Cell) -> Any:
    each = cell.config
    options: dict[str, Any] = {"num_cpus": each.threads_per_worker, "num_gpus": each.scaling.gpus}
    if each.scaling.labels:
        options["label_selector"] = each.scaling.labels
    return _task.options(**options, name=str(cell)).remote(each.written(), str(cell.path), sys.path, current_folder())


def _outcome(ref: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(ref)
    except ray.exceptions.TaskCancelledError:
        return Outcome("interrupted")
    except ray.exceptions.LocalRayletDiedError as error:  # all later cells would fail, too
        raise RayLostError(GONE) from error
    except ray.exceptions.RayError as error:  # the process died, and again when the task was retried
        return Outcome("failed", str(error))
    return outcome


def _check_room(cells: Sequence[Cell], say: Callable[[str], None], *, refuse: bool) -> None:
    for cell in cells:
        config = cell.config
        each = RayResources(config.threads_per_worker, config.scaling.gpus, labels=config.scaling.labels)
        if room(each, in_all=True):
            continue
        if refuse:
            raise ConfigError(
                f"{cell} needs {each}, but this machine has no room for that: use fewer threads_per_worker or "
                "gpus_per_worker, or a cluster (ray.address)."
            )
        say(f"{cell} needs {each}, for which no node of the cluster has room: waiting for one")
        return


def _cores(config: Config) -> int:
    """Return the least number of cores that a cell reserves."""
    workers = config.scaling.least
    return int(workers * config.scaling.cpus + 0.999) if workers else config.threads_per_worker


def _at_once(cells: Sequence[Cell], concurrent: int | None) -> int:
    """Return the cores that so many cells need at a time; 0 if no number is given."""
    alone = sorted((cell.config.threads_per_worker for cell in cells if cell.alone), reverse=True)
    return sum(alone[:concurrent]) if concurrent else 0
