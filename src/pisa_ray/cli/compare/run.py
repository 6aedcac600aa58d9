"""Runs cells on a Ray cluster: one task each; those with workers of their own one after the other from the driver."""

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

#: Seconds between two looks at whether the user asked to stop.
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
        cells: Those to run; a run that is in a cell's folder is gone on with.
        concurrent: How many tasks there are at a time, or None: as many as there is room for.
        address: Of the cluster, as in ray.init.
        begin: Told when the first is about to run.
        ended: Told of every cell that ended.
        say: Told what a person may want to know.

    Returns:
        Whether all were run: False if the user asked to stop, then what was begun can be gone on with.

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
    """Run a cell in this process, or go on with what is in its folder; whatever goes wrong is how it ended."""
    try:
        data = opened(config.data, keep=True) if config.scaling.most == 0 else None
        result = train(config, path, resume=RunDirectory(path).has_begun(), progress=False, data=data)
    except NonFiniteError as error:
        return Outcome("diverged", str(error))
    except StoppedWaitingError as error:
        return Outcome("interrupted", str(error))
    except RayLostError:  # no other one would do better
        raise
    except PisaError as error:
        return Outcome("failed", str(error))
    except Exception as error:  # one cell's crash is not the others'
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
    """Run cells as tasks; after a request to stop, those that run finish their round and leave a checkpoint."""
    waiting, running = deque(cells), dict[Any, Cell]()
    cancelled = False
    while running or (waiting and not stop()):
        while waiting and len(running) < concurrent and not stop():
            cell = waiting.popleft()
            running[_submit(cell)] = cell
        done, _ = ray.wait(list(running), timeout=_LOOK) if running else ([], [])
        check_ray()  # else what was lost with it would count as failed
        for ref in done:
            cell, outcome = running.pop(ref), _outcome(ref)
            if outcome.status == "interrupted":
                waiting.append(cell)  # by the user, or by a node that leaves; then it goes on elsewhere
            else:
                ended(cell, outcome)
        if stop() and not cancelled:
            cancelled = True
            for ref in running:
                ray.cancel(ref)  # as Ctrl-C, where it runs
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
    except ray.exceptions.LocalRayletDiedError as error:  # so would all that are to come
        raise RayLostError(GONE) from error
    except ray.exceptions.RayError as error:  # the process died, and died again when it was tried again
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
    """Cores that a cell reserves, at the least."""
    workers = config.scaling.least
    return int(workers * config.scaling.cpus + 0.999) if workers else config.threads_per_worker


def _at_once(cells: Sequence[Cell], concurrent: int | None) -> int:
    """Cores for so many cells at a time, whatever this machine has; 0 where that is not asked for."""
    alone = sorted((cell.config.threads_per_worker for cell in cells if cell.alone), reverse=True)
    return sum(alone[:concurrent]) if concurrent else 0
