"""Events of a run's processes and files, which are written to events.jsonl and shown to the user if they matter."""

from __future__ import annotations

from typing import Any

from pisa_ray.trainer.display import Display
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.terminal import say


class Events:
    """Records events; see pisa_ray.actors.crew.Tell.

    Args:
        directory: The run directory.
        quiet: Whether to show nothing.

    Attributes:
        round: Rounds done, recorded with each event.
        display: Shows progress, once there is any.
        inexact: Whether a part of the run is computed in another numeric environment.
    """

    def __init__(self, directory: RunDirectory, *, quiet: bool = False) -> None:
        self._directory, self._quiet = directory, quiet
        self.round = 0
        self.display: Display | None = None
        self.inexact = False
        self._held: list[tuple[str, dict[str, Any]]] | None = []

    @property
    def accepted(self) -> bool:
        """Whether events are written, as the run has begun."""
        return self._held is None

    def accept(self, round_: int) -> None:
        """Write the events so far: only now is it certain that the run goes on here, after the given round."""
        self.round, held, self._held = round_, self._held or [], None
        for kind, fields in held:
            self._directory.records.add_event(kind, round_, **fields)

    def __call__(self, kind: str, **fields: Any) -> None:
        """Record an event, and show its sentence if it has one."""
        self.inexact = self.inexact or kind == "inexact"
        if kind == "shards_away" and self._directory.records.has_arrivals():
            self._directory.records.end_arrivals(self.round)
        if self._held is None:
            self._directory.records.add_event(kind, self.round, **fields)
        else:
            self._held.append((kind, fields))
        if kind in _SENTENCES:
            text = _SENTENCES[kind].format(**fields | {"shards": _shards(fields.get("shards", []))})
            self.say(f"after round {self.round}: {text}" if self.round else text)

    def say(self, text: str) -> None:
        """Show a line to the user."""
        if self.display is not None:
            self.display.say(text)
        elif not self._quiet:
            say(text)


#: A sentence for each event that matters to the user.
_SENTENCES = {
    "worker_died": "worker {worker} with {shards} is {message}",
    "start_failed": "worker {worker} died while starting ({message})",
    "recovered": "worker {worker} has taken over {shards}, {rounds} rounds replayed in {replay_seconds:.2f} s",
    "consensus_died": "the consensus process died; a new one takes over",
    "resized": "{workers} workers now, {before} before",
    "draining": "node {node} is about to leave; worker {worker} will be let go",
    "worker_refused": "a worker on {node} computes differently and is not used ({message})",
    "robust": "{message}",
    "started": "automatic start: {numbers}",
    "backed_off": "{message}",
    "sigma_raised": "the training loss has turned; sigma is {factor:g} times what was planned before from here on",
    "k0_chosen": "k0 {k0}, before {before}; held-out losses {tried}; trials so far cost {cost:.1f} % of the run",
    "warning": "{message}",
    "inexact": "not exact: {message}",
    "waiting": "{message}",
    "states_lost": "{message}",
    "checkpoint_failed": "{message}",
    "shard_removed": "shard {shard} with {rows} rows has left: the problem is another one now",
    "shard_added": "shard {shard} with {rows} rows of {train} has joined: the problem is another one now",
    "shards_away": "{shards} cannot report, as no worker is at their site; their states are those of round {state}",
    "shards_back": "{shards} can report again",
    "shards_refused": "{message}",
    "request_refused": "{message}",
    "mended": "{message}",
}


def _shards(shards: list[int]) -> str:
    if len(shards) == 1:
        return f"shard {shards[0]}"
    if shards and shards == list(range(shards[0], shards[-1] + 1)):
        return f"shards {shards[0]}-{shards[-1]}"
    return f"{len(shards)} shards"
