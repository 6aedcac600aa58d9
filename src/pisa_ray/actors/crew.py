"""Worker processes: starting them, taking them in when they are ready, noticing that they are gone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from pisa_ray.actors import processes
from pisa_ray.actors.calls import GoneError, answer, is_ready, sent
from pisa_ray.actors.connection import check_ray
from pisa_ray.actors.session import RayResources
from pisa_ray.actors.sites import NOWHERE, Site, Sites
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import differences
from pisa_ray.engine.reports import WorkerInfo
from pisa_ray.errors import PisaError

#: Seconds in which a start must succeed; and seconds of the pauses after starts in a row that did not, as another
#: program may need the memory for a while. After the last pause a run is given up.
START_SECONDS, START_PAUSES = 600.0, (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

#: Seconds without starts after a worker that was refused.
AFTER_REFUSAL = 60.0

#: So many pulses that are missed at once are taken for a pause of this process, and not for silence of the others.
MISSED_PULSES = 5

#: Seconds between two pulses; and seconds that an answer is waited for where some process has failed.
PULSE, PROBE = 1.0, 5.0


class Tell(Protocol):
    """Records an event."""

    def __call__(self, kind: str, **fields: Any) -> None:
        """Record it."""


@dataclass(eq=False)
class Process:
    """A process that is asked for a pulse.

    Attributes:
        actor: Ray's handle.
        ready: Reference to the answer of its set-up.
        since: When it was started, by this process's clock.
        pulse: Reference to the pulse that was asked for last, and when that was.
    """

    actor: Any
    ready: Any
    since: float = field(default_factory=time.monotonic)
    pulse: tuple[Any, float] | None = None


@dataclass(eq=False, kw_only=True)
class Member(Process):
    """A worker process.

    Attributes:
        id: Its number, never used for another.
        site: Its site; None: none of those that shards are pinned to.
        info: What it runs on, once it is ready.
        node: Ray's id of its node.
        shards: The shards that it hosts.
        pace: Seconds of a round per row of its batches, smoothed; 0: not known yet.
        stepped: When its last step began, by its own clock.
    """

    id: int
    site: Site = None
    info: WorkerInfo | None = None
    node: str = ""
    shards: list[int] = field(default_factory=list)
    pace: float = 0.0
    stepped: float = 0.0


@dataclass(frozen=True)
class Plan:
    """A worker that is to be started.

    Attributes:
        site: Where it is to be started.
        shards: The shards whose rows it should read before it joins.
    """

    site: Site
    shards: Sequence[int]


class Crew:
    """The worker processes of a run.

    Args:
        job: What is trained.
        resources: What each worker reserves.
        tell: Takes note of events.
        sites: Where shards are pinned.
        frozen_after: Seconds without a pulse after which a process counts as dead.
        exact: Whether a worker with another numeric environment than the first one's is refused.

    Attributes:
        rests_until: When a start may be tried again, by this process's clock.
        environment: The numeric environment of the first worker, which the others must have, too.
    """

    def __init__(
        self,
        job: Job,
        resources: RayResources,
        tell: Tell,
        sites: Sites = NOWHERE,
        *,
        frozen_after: float = 30.0,
        exact: bool = True,
    ) -> None:
        self.members: list[Member] = []
        self.starting: list[Member] = []
        self.reference = sent(job)
        self._resources, self._sites, self._tell = resources, sites, tell
        self._frozen_after, self._exact = frozen_after, exact
        self.environment: Mapping[str, str | int] | None = None
        self._ids = itertools.count()
        self._failed_starts = 0
        self.rests_until = -float("inf")
        self._felt = -float("inf")

    def change(self, job: Job) -> list[Any]:
        """Have all go on with another job, those that are starting after that; references to the members' answers."""
        self.reference = sent(job)
        for member in self.starting:
            member.actor.call.remote("change", self.reference)
        return [member.actor.call.remote("change", self.reference) for member in self.members]

    def start(self, plans: Iterable[Plan]) -> None:
        """Start a process for each plan."""
        for plan in plans:
            resources = self._resources.on(self._sites.selector(plan.site))
            handle = processes.start_worker(resources)
            ready = handle.set_up.remote(self.reference, list(plan.shards), self._resources.gpus > 0)
            self.starting.append(Member(handle, ready, id=next(self._ids), site=plan.site))

    def arrivals(self) -> list[Member]:
        """Take in the processes that have become ready; they host nothing yet.

        Raises:
            PisaError: Starting failed too often, or for a reason that will not go away.
        """
        check_ray()
        arrived = []
        for member in list(self.starting):
            if not is_ready([member.ready]):
                if time.monotonic() - member.since > START_SECONDS:
                    self._failed_to_start(member, f"not ready after {START_SECONDS:g} s")
                continue
            try:
                info, node = answer(member.ready, "start")
            except GoneError as error:
                self._failed_to_start(member, str(error))
                continue
            except PisaError as error:
                if not self.members:
                    raise
                self._failed_to_start(member, str(error))  # what works elsewhere does not work there
                continue
            self.starting.remove(member)
            self._failed_starts = 0
            member.info, member.node = info, node
            if self.accept(member):
                self.members.append(member)
                arrived.append(member)
                self._tell(
                    "worker_started",
                    worker=member.id,
                    pid=info.pid,
                    node=info.node,
                    ray_node=node,
                    device=info.device,
                )
        return arrived

    def wait_for_arrivals(self, seconds: float) -> None:
        """Wait until a process that is being started is ready, or could not be."""
        if self.starting:
            ray.wait([member.ready for member in self.starting], timeout=seconds, fetch_local=False)

    def _failed_to_start(self, member: Member, why: str) -> None:
        self.dismiss(member)
        self._tell("start_failed", worker=member.id, message=why)
        now = time.monotonic()
        if now < self.rests_until:  # it was started together with another one that failed
            return
        self._failed_starts += 1
        if self._failed_starts <= len(START_PAUSES):
            self.rests_until = now + START_PAUSES[self._failed_starts - 1]
        elif self.members:  # the run goes on with those that work
            self._failed_starts, self.rests_until = 0, now + AFTER_REFUSAL
        else:
            raise PisaError(
                f"workers died {self._failed_starts} times in a row while they were starting ({why}), at last after a "
                f"pause of {START_PAUSES[-1]:g} s: look for too little memory or a crash in the model's construction."
            )

    def accept(self, member: Member) -> bool:
        """Return whether a new worker may stay: one that computes differently is ended where bits matter."""
        assert member.info is not None  # noqa: S101  (for the type checker)
        if self.environment is None:
            self.environment = member.info.environment
        found = differences(self.environment, member.info.environment)
        differ = [f"{key} is {there}, not {here}" for key, (here, there) in found.items()]
        if not differ:
            return True
        fields = {"worker": member.id, "pid": member.info.pid, "node": member.info.node, "message": "; ".join(differ)}
        if self._exact:
            self.rests_until = time.monotonic() + AFTER_REFUSAL
            self.dismiss(member)
            self._tell("worker_refused", **fields)
            return False
        self._tell("inexact", **fields)
        return True

    def dismiss(self, member: Member) -> None:
        """End a process, whether it lives or not."""
        self.members = [m for m in self.members if m is not member]
        self.starting = [m for m in self.starting if m is not member]
        processes.end(member.actor)

    def close(self) -> None:
        """End all."""
        for member in [*self.members, *self.starting]:
            processes.end(member.actor)
        self.members, self.starting = [], []

    def feel(self, others: Sequence[Process] = ()) -> bool:
        """Ask each process for a pulse, without waiting; return whether none has been silent for too long.

        Raises:
            RayLostError: Ray itself is gone.
        """
        check_ray()
        now = time.monotonic()
        if now - self._felt > MISSED_PULSES * PULSE:  # it may be this process that was not running
            for process in [*self.members, *others]:
                process.pulse = None
        self._felt = now
        return not any(self._silent(process) for process in [*self.members, *others])

    def _silent(self, process: Process) -> bool:
        if not is_ready([process.ready]):  # still starting
            return time.monotonic() - process.since > START_SECONDS
        if process.pulse is not None:
            reference, asked = process.pulse
            if not is_ready([reference]):
                return time.monotonic() - asked > self._frozen_after
        process.pulse = _ask(process), time.monotonic()
        return False

    def dead(self, others: Sequence[Process] = ()) -> list[Process]:
        """Return which of the members and some others are gone or frozen; asked after something went wrong.

        Raises:
            RayLostError: Ray itself is gone.
        """
        check_ray()
        processs = [*self.members, *others]
        frozen = [h for h in processs if (h.pulse is not None or not is_ready([h.ready])) and self._silent(h)]
        asked = [(h, _ask(h)) for h in processs if h not in frozen and is_ready([h.ready])]
        ray.wait([pulse for _, pulse in asked], num_returns=len(asked), timeout=PROBE) if asked else None
        return frozen + [h for h, pulse in asked if is_ready([pulse]) and _failed(pulse)]


def _ask(process: Process) -> Any:
    return process.actor.pulse.options(concurrency_group="pulse").remote()


def _failed(pulse: Any) -> bool:
    try:
        ray.get(pulse, timeout=PROBE)
    except RayError:
        return True
    return False
