"""Faults on schedule: which, when and to whom follow from a seed; each is recorded when it really happens.

A fleet that is shaken strikes right after a round has been submitted, so that faults hit while work is under way.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

import pisa_ray.actors
from pisa_ray.actors import RayFleet, RayResources
from pisa_ray.actors.session import room
from pisa_ray.engine.reports import RoundSpec

#: What can happen without more than one node.
KINDS = ("kill", "kill two", "freeze", "slow", "consensus kill", "duplicate", "late", "shrink", "grow")
#: What needs several nodes, or the run in a process of its own; done by whoever owns them.
OUTSIDE = ("node kill", "drain", "join", "driver kill")


@dataclass(frozen=True)
class Fault:
    """Something that happens in a round; `luck` chooses the victim.

    `moment`: right after the round was submitted ("begin"), after an evaluation was asked for and the round is summed
    up ("evaluate"), while shards move ("move"), just before shards join or leave ("change"), after a snapshot
    ("snapshot") or a checkpoint ("save") was asked for.
    """

    round: int
    kind: str
    luck: int = 0
    moment: str = "begin"


def schedule(seed: int, rounds: int, count: int, kinds: Sequence[str] = KINDS) -> list[Fault]:
    """`count` faults in rounds 2 to rounds - 1, no two in one round, every kind at least once where count allows."""
    dice = random.Random(seed)
    chosen = [kinds[k % len(kinds)] for k in range(count)]
    dice.shuffle(chosen)
    when = sorted(dice.sample(range(2, rounds), count))
    return [Fault(r, kind, dice.randrange(1000)) for r, kind in zip(when, chosen, strict=True)]


class Chaos:
    """Strikes on schedule.

    Args:
        faults: What is to happen.
        record: File to which each fault that happened is appended; those in it do not happen again.
        outside: Does what a process cannot do to itself or to its nodes.
    """

    def __init__(
        self, faults: Sequence[Fault], record: Path, outside: Callable[[Fault, RayFleet], dict[str, Any]] | None = None
    ) -> None:
        self.faults, self.record, self._outside = faults, record, outside
        self.awaited: int | None = None  # workers there will be once a resize is done
        self._old: Any = None  # a delivery of an earlier round
        self.refused: list[Any] = []  # what adds that must be refused returned

    def happened(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []

    def strike(self, fleet: RayFleet, moment: str = "begin") -> None:
        round_ = fleet.state.round.spec.number if fleet.state.round is not None else fleet.state.done
        done = {(f["round"], f["kind"], f["moment"]) for f in self.happened()}
        for fault in self.faults:
            if (fault.round, fault.moment) == (round_, moment) and (round_, fault.kind, moment) not in done:
                if moment == "evaluate" and fleet.state.round is not None:
                    ray.wait([fleet.state.round.summary], timeout=60, fetch_local=False)
                self._strike(fault, fleet)
        if moment != "begin":
            return
        deliveries = list(fleet.state.round.deliveries.items())
        if deliveries:
            self._old = round_, deliveries[0][0], deliveries[0][1].payload

    def _strike(self, fault: Fault, fleet: RayFleet) -> None:
        members = [m for m in fleet.crew.members if m.shards]
        victim = members[fault.luck % len(members)]
        what: dict[str, Any] = {}
        if fault.kind == "kill":
            what = {"pids": _send(signal.SIGKILL, [victim])}
        elif fault.kind == "kill two":
            what = {"pids": _send(signal.SIGKILL, members[:2])}
        elif fault.kind == "freeze":
            what = {"pids": _send(signal.SIGSTOP, [victim])}
            # Wakes only once it has been given up: its messages are late then.
            threading.Thread(target=_wake, args=(victim, fleet), daemon=True).start()
        elif fault.kind == "slow":
            what = {"pids": _send(signal.SIGSTOP, [victim])}
            time.sleep(0.5)
            _send(signal.SIGCONT, [victim])
        elif fault.kind == "consensus kill":
            pid = ray.get(_pulse(fleet.state.consensus.actor), timeout=30)
            os.kill(pid, signal.SIGKILL)
            what = {"pids": [pid]}
        elif fault.kind == "duplicate":
            ticket, delivery = next(iter(fleet.state.round.deliveries.items()))
            both = [delivery.added, fleet.state.consensus.actor.add.remote(fault.round, ticket, delivery.payload)]
            self.refused.append((fault.kind, both))
            what = {"ticket": ticket}
        elif fault.kind == "late":
            number, ticket, payload = self._old
            add = fleet.state.consensus.actor.add
            self.refused.append((fault.kind, [add.remote(number, ticket, payload), add.remote(number, -1, payload)]))
            what = {"of_round": number}
        elif fault.kind.startswith("slow from now on: "):
            Path(fault.kind.partition(": ")[2]).write_text(str(victim.info.pid))
        elif fault.kind == "false alarm":
            fleet.recover()
        elif fault.kind in ("shrink", "grow"):
            size = max(1, len(fleet.crew.members) + (1 if fault.kind == "grow" else -1))
            fleet.resize(size)
            self.awaited = min(size, len(fleet.assignment.shards))
            what = {"workers": size}
        else:
            assert self._outside is not None, f"nobody to do {fault.kind}"
            self._note(fault, {})  # before: it may be the end of this process
            self._outside(fault, fleet)
            return
        self._note(fault, what)

    def _note(self, fault: Fault, what: dict[str, Any]) -> None:
        with self.record.open("a") as file:
            file.write(json.dumps({**asdict(fault), **what}) + "\n")

    def check_refusals(self) -> None:
        """Of two same messages one counted; a late one did not, whatever its ticket."""
        for kind, references in self.refused:
            with contextlib.suppress(ray.exceptions.RayError):  # its consensus or worker may be gone since
                accepted = [ray.get(reference, timeout=30) for reference in references]
                assert sum(accepted) == (1 if kind == "duplicate" else 0), (kind, accepted)


def _send(number: int, members: Sequence[Any]) -> list[int]:
    pids = [member.info.pid for member in members]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # struck before, and not noticed yet
            os.kill(pid, number)
    return pids


def _wake(victim: Any, fleet: RayFleet) -> None:
    until = time.monotonic() + 120
    while victim in fleet.crew.members and time.monotonic() < until:
        time.sleep(0.01)
    _send(signal.SIGCONT, [victim])


def _pulse(actor: Any) -> Any:
    return actor.pulse.options(concurrency_group="pulse").remote()


def _shaken(chaos: Chaos) -> type[RayFleet]:
    class Shaken(RayFleet):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            move = self.assignment.move

            def struck(*args: Any) -> None:
                move(*args)
                chaos.strike(self, "move")

            self.assignment.move = struck

        def begin(self, spec: RoundSpec, settle: bool = False) -> None:
            super().begin(spec, settle)
            chaos.strike(self)

        def change(self, job: Any) -> None:
            chaos.strike(self, "change")
            super().change(job)

        def evaluate(self, split: str) -> Any:
            pending = super().evaluate(split)
            chaos.strike(self, "evaluate")
            return pending

        def save(self, folder: Any) -> Any:
            saving = super().save(folder)
            chaos.strike(self, "save")
            return saving

        def take_snapshot(self) -> Any:
            parts = super().take_snapshot()
            chaos.strike(self, "snapshot")
            return parts

        def tend(self) -> None:
            super().tend()
            until = time.monotonic() + 20  # small runs would end before a new process has started
            while chaos.awaited is not None and time.monotonic() < until:
                if len(self.crew.members) == chaos.awaited or not (self.crew.starting or room(RayResources())):
                    chaos.awaited = None
                time.sleep(0.05)
                super().tend()
            chaos.awaited = None

        def close(self) -> None:
            try:
                chaos.check_refusals()
            finally:
                super().close()

    return Shaken


@contextlib.contextmanager
def shaken(chaos: Chaos) -> Iterator[Chaos]:
    """Runs within have fleets that are struck."""
    pisa_ray.actors.RayFleet = _shaken(chaos)
    try:
        yield chaos
    except BaseException:
        print("faults, to be repeated:", chaos.faults)
        raise
    finally:
        pisa_ray.actors.RayFleet = RayFleet
