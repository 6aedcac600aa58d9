"""Which worker hosts which shards: taking them in, rebuilding and moving them, storing those whose site is away."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pisa_ray.actors.balance import Balance
from pisa_ray.actors.calls import answer, how_lost, is_ready
from pisa_ray.actors.crew import Crew, Member, Plan, Tell
from pisa_ray.actors.deliveries import Adoption
from pisa_ray.actors.sites import Site, Sites
from pisa_ray.actors.snapshots import RoundRecord, Snapshots
from pisa_ray.engine.job import Job
from pisa_ray.errors import StatesLostError


class Assignment:
    """The assignment of a job's shards to the workers of a crew.

    Args:
        job: What is trained.
        crew: The processes.
        sites: Where shards are pinned.
        snapshots: What lost shards are rebuilt from.
        tell: Takes note of events.

    Attributes:
        shards: The ids of the shards of the problem.
        lost: The shards that nobody hosts; at first all, at their initial states.
        adopting: Shards that are being taken in.
        balance: The cut of shards by measured pace.
    """

    def __init__(self, job: Job, crew: Crew, sites: Sites, snapshots: Snapshots, tell: Tell) -> None:
        self.shards = job.present
        self.lost = set(self.shards)
        self.adopting: list[Adoption] = []
        self.balance = Balance(_costs(job))
        self._crew, self._sites, self._snapshots, self._tell = crew, sites, snapshots, tell
        self._orphans: set[int] = set()  # shards whose worker died, until another has them

    def change(self, job: Job) -> None:
        """Go on with other shards; newcomers are hosted by nobody yet, as lost shards are."""
        newcomers = set(job.present) - set(self.shards)
        self.shards = job.present
        self.balance.change(_costs(job))
        self._snapshots.joined |= newcomers
        for member in self._crew.members:
            member.shards = [i for i in member.shards if i not in job.removed]
        self.lost = (self.lost | newcomers) - job.removed
        self._orphans -= job.removed

    # Home and away

    def is_home(self, member: Member, shard: int) -> bool:
        """Return whether a worker can step a shard, and not only store its state."""
        return self._sites.is_home(shard, member.site)

    def at_home(self, member: Member) -> list[int]:
        """Return the shards of a worker that it can step."""
        return [i for i in member.shards if self.is_home(member, i)]

    def absent(self) -> frozenset[int]:
        """Return the shards whose states are stored by workers elsewhere, as no worker is at their site."""
        if not self._sites:
            return frozenset()
        return frozenset(i for m in self._crew.members for i in m.shards if not self.is_home(m, i))

    # Lost shards

    def lose(self, shards: Collection[int], *, by: Member | None = None) -> None:
        """Take note that nobody hosts some shards any more; by: as this worker has died."""
        self.lost.update(shards)
        if by is not None:
            self._orphans.update(shards)
        for member in self._crew.members if by is None else [by]:
            member.shards = [i for i in member.shards if i not in shards]

    def rewind(self, round_: int, states: dict[int, Any]) -> None:
        """Have every worker go back with the shards that it has, to their states after an earlier round.

        Args:
            round_: The round.
            states: References to the states, by shard.
        """
        hosted = [(member, list(member.shards)) for member in self._crew.members]
        self.lose(self.shards)
        self.adopting.clear()
        self._snapshots.rest_on(round_, states)
        self._snapshots.urgent = bool(self._sites)  # without sites they are as safe as any snapshot
        for member, shards in hosted:
            self.adopt(member, [i for i in shards if self.is_home(member, i)], [])
            if away := [i for i in shards if not self.is_home(member, i)]:
                self.host_away(member, away, None, again=True)

    def hosts_for_lost(self, staying: Sequence[Member]) -> list[tuple[Member, list[int]]]:
        """Return which workers should take in which lost shards: those that have least.

        Shards whose site is away stay together.

        Args:
            staying: The workers that are not about to leave.
        """
        found: list[tuple[Member, list[int]]] = []
        for site, shards in self._sites.groups(sorted(self.lost)).items():
            hosts = self._sites.eligible(site, staying) or self._sites.eligible(site, self._crew.members)
            members = sorted(hosts or self._crew.members, key=lambda m: (self.balance.load(m.shards), m.id))
            members = members[: len(shards) if hosts else 1]
            members.sort(key=lambda m: min(m.shards, default=m.id))
            found += zip(members, self.balance.cut(shards, members), strict=True)
        return found

    def adopt(self, member: Member, shards: Sequence[int], rounds: Sequence[RoundRecord]) -> None:
        """Have a worker rebuild shards from their last safe states and the rounds since."""
        if not shards:
            return
        done = member.actor.adopt.remote(
            tuple(shards),
            [record.past() for record in rounds],
            *(record.published for record in rounds),
            *self._snapshots.sources(shards),
        )
        self._take_in(member, shards, Adoption(member, tuple(shards), done, time.monotonic(), len(rounds)))

    def host_away(self, member: Member, shards: Sequence[int], said: Any, *, again: bool = False) -> None:
        """Have a worker elsewhere store the last safe states of shards whose site is away.

        The rounds since cannot be replayed without their rows, so the shards' steps in them are undone; their messages
        of these rounds stand until they report again.

        Args:
            member: The worker.
            shards: The shards.
            said: Reference to their messages that stand, by shard; None: their states know them.
            again: Whether the worker has stored them before, so that no event is recorded.
        """
        done = member.actor.adopt.remote(tuple(shards), [], *self._snapshots.sources(shards), rows=False, said=said)
        # If the consensus dies on the way, the states are looked for again, as those of shards that move.
        self._take_in(member, shards, Adoption(member, tuple(shards), done, time.monotonic(), moved=said is not None))
        self._orphans -= set(shards)
        if not again:
            self._tell("shards_away", shards=list(shards), worker=member.id, state=self._snapshots.round)

    def _take_in(self, member: Member, shards: Iterable[int], adoption: Adoption) -> None:
        member.shards = sorted([*member.shards, *shards])
        self.adopting.append(adoption)
        self.lost.difference_update(shards)

    def sort_adoptions(self) -> None:
        """Find out which shards have been taken in, and which were lost with their new worker or on the way."""
        for adoption in list(self.adopting):
            if adoption.member not in self._crew.members:
                self.adopting.remove(adoption)
            elif how_lost(adoption.done):
                if not adoption.moved:
                    raise StatesLostError(
                        f"the states of shards {list(adoption.shards)} are lost with the node that held them."
                    )
                self.adopting.remove(adoption)
                self._orphans.update(adoption.shards)
                self.lost.update(set(adoption.shards) & set(adoption.member.shards))
                adoption.member.shards = [i for i in adoption.member.shards if i not in adoption.shards]
        self.note_arrivals()

    def note_arrivals(self) -> None:
        """Take note of shards that have been taken in."""
        for adoption in [a for a in self.adopting if is_ready([a.done])]:
            adopted = answer(adoption.done, "take in shards")
            self.adopting.remove(adoption)
            if adoption.moved or not self._orphans & set(adoption.shards):
                continue
            self._orphans -= set(adoption.shards)
            self._tell(
                "recovered",
                worker=adoption.member.id,
                shards=list(adoption.shards),
                rounds=adoption.rounds,
                seconds=time.monotonic() - adoption.since,
                load_seconds=adopted.load_seconds,
                replay_seconds=adopted.replay_seconds,
            )

    # Moves

    def plans(self, newcomers: Sequence[Site]) -> list[Plan]:
        """Return which shards each of some newcomers at these sites can expect."""
        known, groups = [*self._crew.members, *self._crew.starting], self._sites.groups(self.shards)
        plans: list[Plan] = []
        for site, number in Counter(newcomers).items():
            members = [m for m in known if m.site == site]
            plans += [Plan(site, some) for some in self.balance.plans(groups.get(site, []), members, number)]
        return plans

    def is_uneven(self, done: int) -> bool:
        """Return whether shards should be assigned anew after a round."""
        members = self._crew.members
        hosted = {m: self.at_home(m) for m in members}
        return self.balance.is_uneven(hosted, lambda: self._cut(members), done)

    def reassign(self, stay: Sequence[Member], done: int) -> None:
        """Cut the shards anew over some workers, and have their states moved.

        Args:
            stay: The workers, at least one.
            done: The last round that has ended.
        """
        hosts = {i: m for m in self._crew.members for i in m.shards}
        cut = self._cut(stay)
        for i in set(hosts).difference(*cut.values()):  # their sites are away
            cut.setdefault(hosts[i] if hosts[i] in stay else stay[0], []).append(i)
        for member, shards in cut.items():
            moving: dict[Member, list[int]] = defaultdict(list)
            for i in sorted(shards):
                if hosts[i] is not member:
                    moving[hosts[i]].append(i)
            if moving:
                self.move(member, moving, done)
        self.balance.done = done

    def _cut(self, stay: Sequence[Member]) -> dict[Member, list[int]]:
        """Cut the shards anew over some workers, leaving out those whose site has none of them."""
        cut: dict[Member, list[int]] = {}
        for site, shards in self._sites.groups(self.shards).items():
            hosts = self._sites.eligible(site, stay)
            order = sorted(hosts, key=lambda m: (min(m.shards, default=self.shards[-1] + 1), m.id))[: len(shards)]
            if order:
                for member, some in zip(order, self.balance.cut(shards, order), strict=True):
                    cut.setdefault(member, []).extend(some)
        return cut

    def move(self, member: Member, moving: Mapping[Member, list[int]], done: int) -> None:
        """Have a worker take shards over from others, with their states of after a round."""
        states = []
        for donor, shards in moving.items():
            back = [i for i in shards if not self.is_home(donor, i) and self.is_home(member, i)]
            states.append(donor.actor.call.remote("release", shards))
            donor.shards = [i for i in donor.shards if i not in shards]
            self._tell("shard_moved", shards=shards, worker=member.id, before=donor.id)
            if back:
                self._tell("shards_back", shards=back, worker=member.id)
        incoming = sorted(i for shards in moving.values() for i in shards)
        home = [i for i in incoming if self.is_home(member, i)]
        away = [i for i in incoming if i not in home]
        for some, rows in ((home, True), (away, False)):
            if some:
                taken = member.actor.adopt.remote(some, [], *states, rows=rows)
                self._take_in(member, some, Adoption(member, tuple(some), taken, time.monotonic(), moved=True))
        if away:
            self._tell("shards_away", shards=away, worker=member.id, state=done)


def _costs(job: Job) -> dict[int, float]:
    """Return the rows that a report of each shard goes through."""
    return {i: job.steps(i) * job.batch_rows(i) for i in job.present}
