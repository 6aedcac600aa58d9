"""A run that its caller advances: by some rounds at a time, with states that are saved and loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pisa_ray.algorithm import Auto, Method, number
from pisa_ray.errors import ConfigError
from pisa_ray.schedulers import SigmaSchedule
from pisa_ray.trainer import checkpoint
from pisa_ray.trainer.checkpoint import Keep
from pisa_ray.trainer.loop import Loop
from pisa_ray.trainer.manifest import Progress
from pisa_ray.trainer.start import numbers_of, with_numbers


@dataclass
class Steps:
    """A run that its caller advances; see PisaTrainer.steps.

    Attributes:
        loop: The round loop, between two rounds.
        rounds: Length of the run.
    """

    loop: Loop
    rounds: int

    def __post_init__(self) -> None:
        self._stopped = False

    @property
    def progress(self) -> Progress:
        """The progress of the run."""
        return self.loop.progress

    @property
    def ended(self) -> bool:
        """Whether the last round is done, or the run has stopped for a reason."""
        return self._stopped or self.progress.round >= self.rounds

    def advance(self, rounds: int) -> dict[str, Any]:
        """Run some rounds, but not beyond the end, and return the last one's row.

        Raises:
            NonFiniteError: If training went to NaN or infinity; a state must be loaded next.
            PisaError: If user code raised, or processes died too often.
        """
        until = min(self.progress.round + rounds, self.rounds)
        self._stopped = self.loop.advance(until) != "finished"
        return self.loop.last_row

    def save(self, folder: Path) -> None:
        """Write the whole state as a checkpoint in a folder."""
        loop = self.loop
        numbers = {**numbers_of(loop.job.method), "sigma": loop.job.method.sigma}  # sigma of the first rule, if any
        first: dict[str, Any] = {f"first_{k}": v for k, v in numbers.items() if isinstance(v, float | int)}
        first["first_k0"] = getattr(loop.sigma, "k0", None)
        environment = loop.fleet.workers()[0].environment
        draft = checkpoint.begin(
            folder, loop.progress, loop.identity, environment, {**loop.last_row, **first}, Keep(None)
        )
        draft.finish(loop.fleet.save(draft.folder).files())

    def load(self, folder: Path, method: Method, schedule: SigmaSchedule) -> None:
        """Go on from a state that a run of the same data and model has saved, perhaps with other settings.

        If sigma^0 differs, sigma is multiplied by the ratio of the two. Numbers that would be automatic are those of
        the saved run.

        Raises:
            ConfigError: If there is no state in the folder, or it is one of another problem.
        """
        loop, saved = self.loop, checkpoint.latest(folder)
        if saved is None:
            raise ConfigError(f"{folder} holds no complete checkpoint: give a folder that a run was saved in.")
        for key in ("data_sha256", "parameters"):
            if saved.manifest["identity"].get(key) != loop.identity[key]:
                raise ConfigError(f"{saved.folder} is of other data or another model: use states of this problem.")
        row: dict[str, Any] = dict(saved.manifest["metrics"])
        other_k0 = row.pop("first_k0", None) != getattr(schedule, "k0", None)
        numbers = {key.removeprefix("first_"): row.pop(key) for key in list(row) if key.startswith("first_")}
        numbers |= saved.manifest["progress"]["start"]
        open_ = {name for name, value in numbers_of(method).items() if isinstance(value, Auto) or value == "auto"}
        start = {name: value for name, value in numbers.items() if name in open_}
        job = with_numbers(replace(loop.job, method=method), start)
        loop.fleet.change(job)
        progress = saved.restore(loop.fleet)
        if other_k0:
            progress.memory.pop("k0", None)  # from now on the schedule's k0 counts
        progress.sigma *= number(job.method.sigma) / numbers["sigma"]
        self.loop = replace(loop, job=job, progress=progress, sigma=schedule, last_row=row)
