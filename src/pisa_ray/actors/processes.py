"""The two kinds of Ray actors, thin shells around pisa_ray.engine's Worker and Consensus.

Both answer a pulse, and workers write files, in threads of their own. In their main thread calls run in the order in
which they were made, those of the consensus in the order in which their arguments arrive. They are set up by calls:
Ray never frees references given to a constructor.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pisa_ray.actors.connection import is_gone
from pisa_ray.actors.imports import import_from
from pisa_ray.actors.session import RayResources
from pisa_ray.engine.consensus import Consensus, write_published
from pisa_ray.engine.files import Folder
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import set_numerics
from pisa_ray.engine.reports import ConsensusReport, PastRound, Payload, RoundSpec, WorkerInfo, WorkerReport
from pisa_ray.engine.states import States, write_states
from pisa_ray.engine.worker import Worker

#: Threads beside the main one.
_GROUPS = {"pulse": 1, "files": 1}


@dataclass(frozen=True)
class Adopted:
    """How long a worker took to take in shards.

    Attributes:
        load_seconds: To read rows and states.
        replay_seconds: To step through the rounds since the states were taken.
    """

    load_seconds: float
    replay_seconds: float


class WorkerActor:
    """A Worker in a Ray process.

    Attributes:
        worker: The worker, once it is set up.
    """

    def __init__(self, path: list[str]) -> None:
        import_from(path)
        self.worker: Worker | None = None

    def set_up(self, job: Job, shards: Sequence[int], gpu: bool) -> tuple[WorkerInfo, str]:
        """Build the model and read the rows of shards that are expected here.

        Returns:
            What the worker runs on, and Ray's id of the node.
        """
        self.worker = Worker(job, gpu=gpu)
        self.worker.prepare(shards)
        return self.worker.info(), ray.get_runtime_context().get_node_id()

    def step(
        self,
        spec: RoundSpec,
        published: np.ndarray,
        shards: Sequence[int],
        repeat: bool,
        absent: Collection[int] = (),
    ) -> tuple[Payload, WorkerReport]:
        """See Worker.step."""
        return self._it.step(spec, published, shards, repeat, absent)

    def adopt(
        self,
        shards: Sequence[int],
        rounds: Sequence[PastRound],
        *values: Any,
        rows: bool = True,
        said: Mapping[int, np.ndarray] | None = None,
    ) -> Adopted:
        """Take in shards and bring them up to date.

        Args:
            shards: The shards.
            rounds: The rounds to replay.
            values: The vectors published for those rounds, [p + b + e] each, then where the states are (States or
                StoredStates).
            rows: See Worker.host.
            said: Their last messages, where the states may be older.
        """
        start = time.perf_counter()
        self._it.host(shards, *values[len(rounds) :], rows=rows)
        self._it.hear(said or {})
        loaded = time.perf_counter()
        self._it.replay(shards, rounds, values[: len(rounds)])
        return Adopted(loaded - start, time.perf_counter() - loaded)

    def snapshot(self, shards: Sequence[int]) -> tuple[States, float]:
        """See Worker.snapshot; and when it began, by the clock of WorkerReport.began."""
        return self._it.snapshot(shards), time.monotonic()

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call any other method of Worker, by name."""
        return getattr(self._it, method)(*args, **kwargs)

    def pulse(self) -> int:
        """Answer with the process id, if the process is alive and its interpreter free."""
        return os.getpid()

    def write_states(self, folder: Folder, name: str, states: States) -> dict[str, object]:
        """See pisa_ray.engine.states."""
        return write_states(folder, name, states)

    def write_published(self, folder: Folder, name: str, published: np.ndarray) -> dict[str, object]:
        """See pisa_ray.engine.consensus."""
        return write_published(folder, name, published)

    @property
    def _it(self) -> Worker:
        if self.worker is None:
            raise RuntimeError("set_up() comes first")
        return self.worker


class ConsensusActor:
    """The Consensus in a Ray process. Calls run one at a time, in the order in which their arguments arrive.

    Attributes:
        consensus: The consensus, once it is set up.
    """

    consensus: Consensus

    def __init__(self, path: list[str]) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # without it an actor that reserved no GPU sees all
        import_from(path)

    def set_up(self, job: Job, round_: int, published: np.ndarray | None) -> tuple[np.ndarray | None, None]:
        """Get ready for a round that begins with a published vector; None: the initial model's, which is returned."""
        set_numerics(threads=1)
        model = job.build_model()
        self.consensus = Consensus(job, model.layout, model.published(), model.unaveraged)
        if published is None:
            return self.consensus.publish(), None
        self.consensus.restore(published, round_)
        return None, None

    def restore(self, published: np.ndarray, round_: int, since: int) -> None:
        """See Consensus.restore."""
        self.consensus.restore(published, round_, since)

    def change(self, job: Job) -> None:
        """See Consensus.change."""
        self.consensus.change(job)

    def add(self, round_: int, ticket: int, payload: Payload, *before: bool, duals: bool = True) -> bool:
        """See Consensus.add; `before` are the adds that it waits for."""
        return self.consensus.add(round_, ticket, payload, duals=duals)

    def refuse(self, tickets: Sequence[int]) -> None:
        """See Consensus.refuse."""
        self.consensus.refuse(tickets)

    def said(self, shards: Sequence[int]) -> dict[int, np.ndarray]:
        """See Consensus.said."""
        return self.consensus.said(shards)

    def fence(self, round_: int, ticket: int) -> bool:
        """See Consensus.fence."""
        return self.consensus.fence(round_, ticket)

    def update(self, spec: RoundSpec, tickets: Sequence[int], *added: bool) -> tuple[np.ndarray, ConsensusReport]:
        """See Consensus.update; `added` are the adds it waits for."""
        return self.consensus.update(spec, tickets)

    def copy(self, states: States) -> States:
        """Return the states in an object on this node, which does not need the node that they came from."""
        return states

    def pulse(self) -> int:
        """Answer with the process id, if the process is alive."""
        return os.getpid()


# Processes are started and ended by these three functions only, so tests can replace them by others (simulated
# processes, or processes that are used again).


def start_worker(resources: RayResources) -> Any:
    """Start a WorkerActor that reserves some resources; return Ray's handle of it."""
    return _remote(WorkerActor).options(max_restarts=0, **resources.options()).remote(sys.path)


def start_consensus(node: str) -> Any:
    """Start a ConsensusActor on a node, given by Ray's id; return Ray's handle of it."""
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": here, "allow_out_of_order_execution": True, "max_restarts": 0}
    return _remote(ConsensusActor).options(**options).remote(sys.path)


def end(actor: Any) -> None:
    """Kill an actor; one that is gone already is no error."""
    if is_gone():  # with all that Ray had started here
        return
    with suppress(RayError, ValueError):
        ray.kill(actor)


def _remote(kind: type) -> Any:
    remote: Any = ray.remote  # its types do not know concurrency groups
    return remote(concurrency_groups=_GROUPS)(kind)
