"""Writing a checkpoint's files while training goes on: each worker writes, in a thread of its own, what it owns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pisa_ray.actors.calls import GoneError, answer, how_lost, is_ready
from pisa_ray.actors.crew import Crew, Member
from pisa_ray.actors.snapshots import Part
from pisa_ray.engine.files import Folder
from pisa_ray.engine.fleet import Saved
from pisa_ray.errors import WorkerDiedError

#: How often a file is given to another worker when its writer dies.
ATTEMPTS = 3


@dataclass
class _File:
    method: str
    stem: str
    safe: Any
    written: Any
    attempts: int = 1


class RaySaving:
    """See pisa_ray.engine.fleet.Saving.

    Args:
        folder: Where the files go.
        parts: The shards' states, a snapshot.
        published: Reference to the published vector of the same round.
        crew: The workers, which write.
        wait: Waits for calls; raises GoneError when one is lost.
        recover: Replaces what is lost, so that the crew is alive.
    """

    def __init__(
        self,
        folder: Folder,
        parts: Sequence[Part],
        published: Any,
        crew: Crew,
        wait: Callable[[Sequence[Any], str], None],
        recover: Callable[[], None],
    ) -> None:
        self._folder, self._crew, self._wait, self._recover = folder, crew, wait, recover
        self._consensus = _File(
            "write_published",
            "consensus",
            published,
            self._write("write_published", "consensus", published, crew.members[0]),
        )
        self._shards = [
            _File(
                "write_states",
                f"shards-{k}",
                part.states,
                self._write("write_states", f"shards-{k}", part.source, part.member),
            )
            for k, part in enumerate(parts)
        ]

    def done(self) -> bool:
        """See Saving."""
        return is_ready([file.written for file in (self._consensus, *self._shards)])

    def files(self) -> Saved:
        """See Saving.

        Raises:
            WorkerDiedError: A file could not be written, as its writers died.
            PisaError: A file could not be written, as a disk failed.
        """
        consensus, *shards = [self._entry(file) for file in (self._consensus, *self._shards)]
        return {"consensus": consensus, "shards": shards}

    def _entry(self, file: _File) -> Any:
        while True:
            try:
                self._wait([file.written], "write the checkpoint")
                return answer(file.written, "write the checkpoint")
            except GoneError as error:
                self._recover()
                if how_lost(file.written) is None:
                    continue  # another process was lost, not this file's writer
                if file.attempts == ATTEMPTS:
                    raise WorkerDiedError(f"a checkpoint's {file.stem} could not be written ({error}).") from error
                file.attempts += 1  # a file of its own: the first writer may still be at it
                again = self._crew.members[file.attempts % len(self._crew.members)]
                stem = f"{file.stem}-{file.attempts}"
                file.written = self._write(file.method, stem, file.safe, again)

    def _write(self, method: str, stem: str, value: Any, member: Member) -> Any:
        call = getattr(member.actor, method).options(concurrency_group="files")
        return call.remote(self._folder, f"{stem}.safetensors", value)
