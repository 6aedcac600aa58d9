"""Writes checkpoints while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pisa_ray.engine.fleet import Fleet, Saving
from pisa_ray.errors import WorkerDiedError
from pisa_ray.trainer import checkpoint
from pisa_ray.trainer.checkpoint import Draft, Keep
from pisa_ray.trainer.events import Events
from pisa_ray.trainer.manifest import Progress
from pisa_ray.trainer.run_directory import RunDirectory


class CheckpointWriter:
    """Writes the checkpoints of a run, one at a time.

    Args:
        fleet: The fleet, whose workers write.
        directory: The run directory.
        identity: What a checkpoint must have in common with the run to be resumed.
        keep: Which checkpoints stay.
        events: Records events.
        progress: The progress of the run.

    Attributes:
        saved: The round of the last checkpoint that is complete or being written; -1 if there is none.
    """

    def __init__(
        self,
        fleet: Fleet,
        directory: RunDirectory,
        identity: Mapping[str, Any],
        keep: Keep,
        events: Events,
        progress: Progress,
    ) -> None:
        self._fleet, self._directory, self._identity, self._keep = fleet, directory, identity, keep
        self._events, self._progress = events, progress
        self._under_way: tuple[Draft, Saving, Mapping[str, Any]] | None = None
        self.saved = progress.round or -1

    def save(self, metrics: Mapping[str, Any], tries: int = 0) -> None:
        """Begin to write a checkpoint of the last round; it is finished while training goes on.

        Args:
            metrics: The last row.
            tries: See `finish`.
        """
        self.finish()  # one at a time
        environment = self._fleet.workers()[0].environment
        draft = checkpoint.begin(
            self._directory.checkpoints, self._progress, self._identity, environment, metrics, self._keep
        )
        self._under_way = draft, self._fleet.save(draft.folder), metrics
        self.saved = self._progress.round
        self.finish_if_ready(tries)

    def finish_if_ready(self, tries: int = 0) -> None:
        """Finish the checkpoint that is being written, if its files are complete."""
        if self._under_way is not None and self._under_way[1].done():
            self.finish(tries)

    def finish(self, tries: int = 0) -> None:
        """Wait for the checkpoint that is being written.

        Args:
            tries: How often to write it if workers die meanwhile; 0: it is left out, as another one will follow.

        Raises:
            WorkerDiedError: If workers died every time.
        """
        if self._under_way is None:
            return
        (draft, saving, metrics), self._under_way = self._under_way, None
        try:
            files = saving.files()
        except WorkerDiedError as error:
            draft.folder.delete()
            self.saved = -1
            self._events("checkpoint_failed", message=str(error))
            if tries == 1:
                raise
            if tries:
                self._fleet.tend()
                self.save(metrics, tries - 1)
                self.finish(tries - 1)
        else:
            self._directory.publish()  # first, so that the rows of a complete checkpoint are there
            draft.finish(files)
            self._events("checkpoint_saved", path=draft.folder.name)
