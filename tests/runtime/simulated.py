"""The real fleet, workers and consensus on a Ray of one process, where calls are done at once and nothing takes time.

A process dies when the test says so: what was asked of it before is done, what is asked later is lost. That a call is
done is seen sooner or later, by luck. So thousands of sequences of faults can be tried in seconds; races inside Ray
cannot be seen.
"""

from __future__ import annotations

import copy
import itertools
import random
from types import SimpleNamespace
from typing import Any

import ray
from ray.exceptions import RayActorError

import pisa_ray.actors.fleet as fleets
from pisa_ray.actors import RayFleet, RayResources, Sites, Staffing, Wanted, deaths, processes
from pisa_ray.actors.crew import Member
from pisa_ray.actors.processes import ConsensusActor, WorkerActor
from pisa_ray.engine.consensus import Consensus
from pisa_ray.engine.hosted import HostedShard
from pisa_ray.engine.job import Job
from pisa_ray.engine.worker import Worker

NODE = "a" * 56


class Ref:
    """A reference to an answer that is there, or to an error."""

    def __init__(self, value: Any = None, error: Exception | None = None) -> None:
        self.value, self.error = value, error


def get(reference: Any, timeout: float | None = None) -> Any:
    if not isinstance(reference, Ref):
        return reference
    if reference.error is not None:
        raise reference.error
    return reference.value


class Call:
    def __init__(self, actor: Actor, name: str, returns: int = 1) -> None:
        self.actor, self.name, self.returns = actor, name, returns

    def options(self, num_returns: int | None = None, **_: Any) -> Call:
        return Call(self.actor, self.name, num_returns or self.returns)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if self.actor.dead:
                raise RayActorError
            values = [get(x) for x in args]
            named = {key: get(x) for key, x in kwargs.items()}
            out = copy.deepcopy(getattr(self.actor.it, self.name)(*values, **named))
        except RayActorError as error:
            return [Ref(error=error) for _ in range(self.returns)] if self.returns > 1 else Ref(error=error)
        return [Ref(one) for one in out] if self.returns > 1 else Ref(out)


class Actor:
    """A process."""

    def __init__(self, it: Any) -> None:
        self.it, self.dead = it, False

    def __getattr__(self, name: str) -> Call:
        return Call(self, name)


class Crew:
    """Members that a test adds and kills."""

    def __init__(self, job: Job, *_: Any, **__: Any) -> None:
        self.members: list[Member] = []
        self.starting: list[Member] = []
        self.reference = Ref(job)

    def feel(self, others: Any = ()) -> bool:
        return True

    def dead(self, others: Any = ()) -> list[Any]:
        return [holder for holder in [*self.members, *others] if holder.actor.dead]

    def dismiss(self, member: Member) -> None:
        self.members = [m for m in self.members if m is not member]

    def change(self, job: Job) -> list[Ref]:
        self.reference = Ref(job)
        return [member.actor.call.remote("change", self.reference) for member in self.members]

    def close(self) -> None:
        self.members = []


class Elastic:
    """Newcomers and who is leaving are what a test says."""

    def __init__(self, crew: Crew, *_: Any) -> None:
        self.crew = crew
        self.pending: list[Member] = []
        self.arrived: list[Member] = []
        self.leaving: list[Member] = []

    def staff(self) -> None:
        self.crew.members += self.pending
        self.pending = []

    def look(self) -> tuple[list[Member], list[Member]]:
        (arrived, self.arrived), (leaving, self.leaving) = (self.arrived, []), (self.leaving, [])
        self.crew.members += arrived
        return arrived, [m for m in leaving if m in self.crew.members]

    def refit(self) -> None:
        pass

    def await_start(self, holder: Any) -> None:
        pass

    def staying(self) -> list[Member]:
        return self.crew.members

    def is_short(self) -> bool:
        return False

    def is_staying(self, member: Member) -> bool:
        return False  # so that no number of deaths ends the run

    def close(self) -> None:
        pass


class Simulation:
    """A run on some workers.

    Args:
        job: What is trained.
        sites: Where shards are pinned.
        at: The site of each worker.
        monkeypatch: Puts the fakes in their places.
        luck: Decides whether a call that is done is seen to be; None: at once.
        wanted: What is put up with.
    """

    def __init__(
        self,
        job: Job,
        sites: Sites,
        at: list[str | None],
        monkeypatch: Any,
        luck: random.Random | None = None,
        wanted: Wanted = Wanted(1, 9),  # noqa: B008  (it is frozen)
    ) -> None:
        def wait(references: Any, **_: Any) -> tuple[list[Any], list[Any]]:
            done = [r for r in references if luck is None or luck.random() < 0.5]
            return done, [r for r in references if r not in done]

        for name, fake in {
            "wait": wait,
            "get": get,
            "put": Ref,
            "nodes": lambda: [1],
            "cluster_resources": lambda: {"object_store_memory": 1e9},
            "get_runtime_context": lambda: SimpleNamespace(get_node_id=lambda: NODE),
        }.items():
            monkeypatch.setattr(ray, name, fake)
        monkeypatch.setattr(processes, "start_consensus", lambda node: Actor(ConsensusActor([])))
        monkeypatch.setattr(processes, "end", lambda actor: setattr(actor, "dead", True))
        monkeypatch.setattr(fleets, "Crew", Crew)
        if luck is not None:  # by chance the consensus may die as often as it likes
            monkeypatch.setattr(deaths, "DEATHS_IN_A_ROUND", 99)
        self._job, self._ids = job, itertools.count()
        first = [self.member(site) for site in at]

        class Staffed(Elastic):
            def __init__(self, crew: Crew, *rest: Any) -> None:
                super().__init__(crew, *rest)
                self.pending = first

        monkeypatch.setattr(fleets, "Elastic", Staffed)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.log: list[Any] = []
        self.fleet: Any = RayFleet(job, Staffing(wanted), RayResources(), self._tell, sites=sites, log=self._arrived)

    def _tell(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))

    def _arrived(self, round_: int, steps: Any) -> None:
        self.log.append((round_, steps))

    def member(self, site: str | None) -> Member:
        """A worker that has just started."""
        actor = Actor(WorkerActor([]))
        actor.it.worker = Worker(self._job, process_is_ours=False)
        return Member(actor, Ref(), id=next(self._ids), site=site, node=NODE)

    @property
    def members(self) -> list[Member]:
        return self.fleet.crew.members

    @property
    def consensus(self) -> Consensus:
        actor: ConsensusActor = self.fleet.state.consensus.actor.it
        return actor.consensus

    def hosted(self) -> dict[int, HostedShard]:
        """What the live workers host, by shard; each once."""
        found: dict[int, HostedShard] = {}
        for member in self.members:
            if not member.actor.dead:
                here = member.actor.it.worker.shards
                assert sorted(here) == member.shards
                assert not set(here) & set(found)
                found |= here
        return found

    def kill(self, holder: Any) -> None:
        """A process dies, and something that was lost with it has been noticed."""
        holder.actor.dead = True
        self.fleet.state.suspect = True

    def kill_some(self, luck: random.Random, share: float) -> None:
        """Each process dies with some probability; if all workers do, another one is about to start."""
        for member in self.members:
            if luck.random() < share:
                self.kill(member)
        if luck.random() < share / 2:
            self.kill(self.fleet.state.consensus)
        gone = all(member.actor.dead for member in self.members)
        self.fleet.elastic.pending = [self.member(luck.choice(["bonn", "lyon"]))] if gone else []
