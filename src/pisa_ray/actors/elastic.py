"""How many workers there should be: starting more when there is room, letting some go, waiting for the least."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import ray

from pisa_ray.actors.calls import is_ready
from pisa_ray.actors.connection import check_ray
from pisa_ray.actors.crew import PULSE, START_SECONDS, Crew, Member, Plan, Process, Tell
from pisa_ray.actors.session import RayResources, ask_autoscaler, can_grow, draining, room, usable_nodes
from pisa_ray.actors.sites import NOWHERE, Site, Sites
from pisa_ray.errors import ConfigError, PisaError, StoppedWaitingError

#: Seconds between looks at the cluster; between messages while waiting, and before the first; until a process that has
#: ended has freed its resources; and that a user who wants to stop is made to wait for a process.
LOOK_EVERY, MESSAGE, SOON, SETTLE, LENIENT = 1.0, 10.0, 3.0, 15.0, 30.0


@dataclass(frozen=True)
class Wanted:
    """How many workers the user wants when a run begins, whatever there is room and work for, and other settings.

    Attributes:
        least: Fewest.
        most: Most; as many as there is room for are started.
        patience: Seconds to wait for the least.
        frozen_after: Seconds without a pulse after which a process counts as dead.
        max_failures: Deaths after which the run goes on; -1: any number.
        exact: Whether workers with another numeric environment are refused.
        look_every: Seconds between two looks for more room.
    """

    least: int
    most: int
    patience: float = 300.0
    frozen_after: float = 30.0
    max_failures: int = -1
    exact: bool = True
    look_every: float = LOOK_EVERY


@dataclass
class Staffing:
    """What changes about a run's workers, whichever fleet they belong to: where one is lost, another is started.

    Attributes:
        wanted: What the user wanted when the run began.
        least: Fewest workers that are wanted now.
        most: Most workers that are wanted now.
        deaths: Processes that have died.
        staffed: Whether there have been enough workers once.
    """

    wanted: Wanted
    least: int = field(init=False)
    most: int = field(init=False)
    deaths: int = 0
    staffed: bool = False

    def __post_init__(self) -> None:
        self.least, self.most = self.wanted.least, self.wanted.most

    def resize(self, workers: int) -> None:
        """Change the wanted number of workers; as many of them as there is room for are started."""
        self.most, self.least = workers, min(self.least, workers)


class Elastic:
    """Keeps the crew at the size that is wanted, as far as the cluster allows.

    Args:
        crew: The processes.
        staffing: How many are wanted now; changed by `resize`.
        resources: What each reserves.
        tell: Takes note of events.
        stop_requested: Whether the user asked to stop.
        plans: Returns which shards newcomers at some sites can expect.
        shards: The shards of the problem now: a worker without any would be of no use.
        sites: Where shards are pinned.
    """

    def __init__(
        self,
        crew: Crew,
        staffing: Staffing,
        resources: RayResources,
        tell: Tell,
        stop_requested: Callable[[], bool],
        plans: Callable[[Sequence[Site]], list[Plan]],
        shards: Callable[[], Sequence[int]],
        sites: Sites = NOWHERE,
    ) -> None:
        self._crew, self._staffing, self._resources, self._sites, self._tell = crew, staffing, resources, sites, tell
        self._stop_requested, self._shards, self._plans = stop_requested, shards, plans
        self._looked = -float("inf")
        self._draining: set[str] = set()
        self._asked = 0

    @property
    def most(self) -> int:
        """Most workers now: no more than there are shards, and at least one for each site."""
        sites = [site for site in self._sites.groups(self._shards()) if site is not None]
        return max(min(self._staffing.most, len(self._shards())), len(sites))

    @property
    def least(self) -> int:
        """Fewest workers now; where sites may be away, one is enough."""
        return 1 if self._sites else min(self._staffing.least, self.most)

    def resize(self, workers: int) -> None:
        """Change the wanted number of workers; as many of them as there is room for are started."""
        self._staffing.resize(workers)
        self.refit()

    def refit(self) -> None:
        """Take note that other numbers of workers are allowed now: drop starts that are too many, and look for room."""
        self._looked = -float("inf")
        for member in self._crew.starting[max(self.most - len(self._crew.members), 0) :]:
            self._crew.dismiss(member)
        if self._asked > self.most:
            self._ask(self.most)

    def look(self) -> tuple[list[Member], list[Member]]:
        """Return, between two rounds, who has arrived, and who is to go once others host its shards."""
        arrived = self._crew.arrivals() if self._crew.starting else []
        if time.monotonic() - self._looked >= self._staffing.wanted.look_every:
            self._looked = time.monotonic()
            self.note_draining()
            self._grow()
        return arrived, self.leaving()

    def staff(self) -> None:
        """Wait until there are as many workers as there must be.

        Raises:
            ConfigError: There was no room for them within the patience, at the start, or there cannot be any.
            PisaError: There was no room for them later on.
            StoppedWaitingError: The user asked to stop.
        """
        self._check_hope()
        began, patience = time.monotonic(), self._staffing.wanted.patience
        said = began + SOON - MESSAGE
        while True:
            self._crew.arrivals()
            resting = time.monotonic() < self._crew.rests_until
            if resting:  # starts are pausing, and not for want of room
                began = time.monotonic()
            have, waited = len(self._useful()), time.monotonic() - began
            self._grow()
            if not self._coming() and have >= self.least and (resting or self._settled(waited)):
                self._staffing.staffed = True
                return
            if self._stop_requested():
                raise StoppedWaitingError("stopped while waiting for workers; the last complete checkpoint is kept.")
            if not self._coming() and not resting and have < self.least:
                if waited > patience:
                    kind = PisaError if self._staffing.staffed else ConfigError
                    raise kind(
                        f"{self._short(have)} within {patience:g} s: use fewer or smaller workers, a "
                        "larger cluster, or more patience; resume=True goes on from the last checkpoint."
                    )
                if time.monotonic() - said > MESSAGE:
                    said = time.monotonic()
                    left = patience - waited
                    self._tell("waiting", message=f"{self._short(have)}; waiting for up to {left:.0f} s more")
            self._crew.wait_for_arrivals(0.5)
            if not self._coming():
                time.sleep(0.1)

    def await_start(self, process: Process) -> None:
        """Wait until a process is ready, or could not be started, or has taken too long.

        Raises:
            RayLostError: Ray itself is gone.
            StoppedWaitingError: The user asked to stop, and the process takes long.
        """
        while not is_ready([process.ready]) and (waited := time.monotonic() - process.since) < START_SECONDS:
            check_ray()
            usable_nodes()
            if waited > LENIENT and self._stop_requested():
                raise StoppedWaitingError("stopped while waiting for a process; the last complete checkpoint is kept.")
            ray.wait([process.ready], timeout=PULSE, fetch_local=False)

    def is_short(self) -> bool:
        """Return whether there are too few workers that can step, and no other is being started."""
        return len(self._useful()) < self.least and (bool(self._sites) or not self._coming())

    def close(self) -> None:
        """Ask nothing of the autoscaler any more."""
        if self._asked:
            self._ask(0)

    def _useful(self) -> list[Member]:
        """Return the workers that can host shards at home."""
        members = self._crew.members
        return [m for m in members if self._sites.is_useful(m.site, self._shards())] if self._sites else members

    def _coming(self) -> list[Member]:
        """Return the workers that are being started on nodes that are there."""
        starting = self._crew.starting
        if not self._sites or not starting:
            return starting
        there = {node.get("Labels", {}).get(self._sites.label) for node in usable_nodes().values()}
        return [member for member in starting if member.site is None or member.site in there]

    def _settled(self, waited: float) -> bool:
        """Return whether no more room is expected soon: a process that has ended takes a while to free its room."""
        missing = self.most - len(self._crew.members)
        return missing <= 0 or waited > SETTLE or room(self._resources, in_all=True) <= len(self._crew.members)

    def _check_hope(self) -> None:
        """Refuse what there can never be room for, whatever else ends."""
        if can_grow():
            return
        selected = [self._resources.on(self._sites.selector(site)) for site in self._sites.groups(self._shards())]
        have = sum(room(resources, in_all=True) for resources in selected)
        if have < self.least:
            raise ConfigError(
                f"{self._short(have)}, and no node will join it, as it was started for this run: use fewer or smaller "
                "workers, or a cluster (RAY_ADDRESS)."
            )

    def _grow(self) -> None:
        crew = self._crew
        missing = self.most - len(self.staying()) - len(crew.starting)
        if missing <= 0 or time.monotonic() < crew.rests_until:
            return
        if openings := self._openings(missing):
            crew.start(self._plans(openings))
        elif self._asked != self.most:
            self._ask(self.most)

    def _openings(self, missing: int) -> Sequence[Site]:
        """Return the sites at which so many workers can be started now."""
        if not self._sites:
            return [None] * min(missing, room(self._resources))
        have = Counter(member.site for member in [*self.staying(), *self._crew.starting])
        most = missing + have.total()
        return self._sites.openings(
            self._shards(), most, have, lambda site: room(self._resources.on(self._sites.selector(site)))
        )

    def _ask(self, workers: int) -> None:
        self._asked = workers
        ask_autoscaler(self._resources, workers)

    def note_draining(self) -> None:
        """Look at which nodes are about to leave, and tell of workers there."""
        now = draining()
        for member in self._crew.members:
            if member.node in now - self._draining:
                self._tell("draining", worker=member.id, node=member.info.node if member.info else "")
        self._draining = now

    def staying(self) -> list[Member]:
        """Return the workers whose nodes are not about to leave."""
        return [m for m in self._crew.members if m.node not in self._draining]

    def is_staying(self, member: Member) -> bool:
        """Return whether a worker's node is there and not about to leave."""
        return member.node in usable_nodes()

    def leaving(self) -> list[Member]:
        """Return workers on draining nodes and those that are too many, but leave the least number."""
        useful = self._useful()
        staying = [m for m in self.staying() if m in useful]
        if len(staying) < self.least:
            return []
        surplus = _spread(staying)[max(self.most, 1) :] + [m for m in self.staying() if m not in useful]
        draining = [m for m in self._crew.members if m.node in self._draining]
        if self._sites:  # a site that has only these keeps them until another one is ready
            waits = {m.site for m in self._coming()} - {m.site for m in staying}
            draining = [m for m in draining if m.site not in waits]
        return surplus + draining

    def _short(self, have: int) -> str:
        where = f", on nodes labelled {self._sites.label}: {', '.join(self._sites.names)}" if self._sites else ""
        return f"the Ray cluster has room for {have} of at least {self.least} workers of {self._resources} each{where}"


def _spread(members: Sequence[Member]) -> list[Member]:
    """Sort workers so that each site comes once before any site comes again."""
    before: Counter[Site] = Counter()
    ranks = {}
    for member in members:
        ranks[member.id] = before[member.site]
        before[member.site] += 1
    return sorted(members, key=lambda member: ranks[member.id])
