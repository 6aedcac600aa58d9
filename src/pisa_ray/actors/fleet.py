"""A fleet of Ray actors: workers on the cluster, the consensus beside the driver.

A round is submitted whole: every worker's step, one `add` per worker that starts when its messages are there, and the
update that waits for all adds. Vectors pass from worker to consensus to worker as object references; the driver sees
small reports only. It owns all references and lets go of a round's when the next w exists.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import ray
from ray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pisa_ray.actors.placement import place
from pisa_ray.actors.session import RayResources
from pisa_ray.engine.consensus import Consensus, ConsensusReport
from pisa_ray.engine.evaluation import Sums
from pisa_ray.engine.files import Folder
from pisa_ray.engine.fleet import Pending, RoundReport, Saved
from pisa_ray.engine.job import Job
from pisa_ray.engine.numerics import set_numerics
from pisa_ray.engine.worker import Payload, Worker, WorkerInfo, WorkerReport
from pisa_ray.errors import PisaError, WorkerDiedError

#: Seconds a start may take (a cluster may have to import torch from cold disks), and any single answer.
START_PATIENCE, PATIENCE = 600.0, 3600.0

#: What Ray raises when a process or its objects are gone, by whoever's fault.
GONE = (RayActorError, ObjectLostError, OutOfMemoryError, WorkerCrashedError)


class WorkerActor:
    """A Worker in a Ray process; set up by a call, since Ray never frees references given to a constructor."""

    def __init__(self, path: list[str]) -> None:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # repeatable matrix products on GPUs
        _import_from(path)
        self._worker: Worker | None = None

    def set_up(self, job: Job, shards: list[int], gpu: bool) -> WorkerInfo:
        """Build the model and read the shards' rows."""
        self._worker = Worker(job, gpu=gpu)
        self._worker.host(shards)
        return self._worker.info()

    def step(self, round_: int, sigma: float, published: np.ndarray, diagnose: bool) -> tuple[Payload, WorkerReport]:
        """See Worker.step."""
        return self._it.step(round_, sigma, published, diagnose)

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Any other method of Worker, by name."""
        return getattr(self._it, method)(*args, **kwargs)

    @property
    def _it(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("set_up() comes first")
        return self._worker


class ConsensusActor:
    """The Consensus in a Ray process. Calls run one at a time, in the order in which their arguments arrive."""

    def __init__(self, path: list[str]) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # without it an actor that reserved no GPU sees all
        _import_from(path)
        set_numerics(threads=1)

    def set_up(self, job: Job) -> np.ndarray:
        """Make the initial model's published vector."""
        model = job.build_model()
        self._it = Consensus(job.method, len(job.shards), model.layout.size, model.published())
        return self._it.publish()

    def add(self, payload: Payload) -> None:
        """See Consensus.add."""
        self._it.add(payload)

    def update(self, diagnose: bool, *added: None) -> tuple[np.ndarray, ConsensusReport]:
        """See Consensus.update; `added` are the adds it waits for."""
        return self._it.update(diagnose)

    def save(self, folder: Folder, name: str) -> dict[str, object]:
        """See Consensus.save."""
        return self._it.save(folder, name)

    def restore(self, folder: Folder, entry: Mapping[str, object]) -> np.ndarray:
        """See Consensus.restore."""
        return self._it.restore(folder, entry)


class RayFleet:
    """Workers that host all shards of a job, and the consensus, as Ray actors. Ray must be connected.

    Args:
        job: What is trained.
        workers: How many processes; at most one per shard is started.
        resources: What each reserves.

    Raises:
        PisaError: The workers do not start.
    """

    def __init__(self, job: Job, workers: int, resources: RayResources) -> None:
        self._job = job
        costs = [min(job.batch_size or len(rows), len(rows)) for rows in job.shards]
        placed = place(costs, min(workers, len(job.shards)))
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        beside: Any = ray.remote(ConsensusActor).options(
            num_cpus=0, scheduling_strategy=here, allow_out_of_order_execution=True, max_restarts=0
        )
        actor: Any = ray.remote(WorkerActor).options(
            num_cpus=resources.cpus, num_gpus=resources.gpus, resources=resources.other or None, max_restarts=0
        )
        self._consensus: Any = beside.remote(sys.path)
        self._workers: list[Any] = [actor.remote(sys.path) for _ in placed]
        reference = ray.put(job)
        self._published = self._consensus.set_up.remote(reference)
        gpu = resources.gpus > 0
        ready = [w.set_up.remote(reference, s, gpu) for w, s in zip(self._workers, placed, strict=True)]
        try:
            self._infos: list[WorkerInfo] = self._get(ready, "start", START_PATIENCE)
            self._get([self._published], "start", START_PATIENCE)
        except BaseException:
            self.close()
            raise
        self._round: tuple[list[Any], Any, Any] | None = None

    def workers(self) -> list[WorkerInfo]:
        """See Fleet."""
        return self._infos

    def begin(self, round_: int, sigma: float, diagnose: bool) -> None:
        """See Fleet."""
        reports, added = [], []
        for worker in self._workers:
            payload, report = worker.step.options(num_returns=2).remote(round_, sigma, self._published, diagnose)
            added.append(self._consensus.add.remote(payload))
            reports.append(report)
        published, consensus = self._consensus.update.options(num_returns=2).remote(diagnose, *added)
        self._round = reports, published, consensus

    def end(self) -> RoundReport:
        """See Fleet."""
        if self._round is None:
            raise RuntimeError("end() without begin()")
        (reports, published, consensus), self._round = self._round, None
        workers: list[WorkerReport]
        *workers, summary = self._get([*reports, consensus], "finish the round")
        self._published = published
        return RoundReport.of(workers, summary, sum(worker.bytes_sent for worker in workers))

    def evaluate(self, split: str) -> Pending:
        """See Fleet."""
        source = self._job.test if split == "test" else self._job.validation
        blocks = range(self._job.evaluation_blocks(source)) if source else range(0)
        n = len(self._workers)
        return self._gather(
            [
                worker.call.remote("evaluate", self._published, split, blocks[k::n])
                for k, worker in enumerate(self._workers[: len(blocks)])
            ]
        )

    def evaluate_shards(self, *, held_out: bool) -> Pending:
        """See Fleet."""
        return self._gather(
            [w.call.remote("evaluate_shards", self._published, held_out=held_out) for w in self._workers]
        )

    def _gather(self, references: list[Any]) -> Pending:
        def sums() -> dict[int, Sums]:
            parts: list[dict[int, Sums]] = self._get(references, "evaluate")
            return dict(sorted(item for part in parts for item in part.items()))

        return sums

    def export(self, rounds: int, path: str) -> str:
        """See Fleet."""
        (digest,) = self._get([self._workers[0].call.remote("export", self._published, rounds, path)], "save the model")
        return str(digest)

    def save(self, folder: Folder) -> Saved:
        """See Fleet."""
        consensus = self._consensus.save.remote(folder, "consensus.safetensors")
        shards = [w.call.remote("save", folder, f"shards-{k}.safetensors") for k, w in enumerate(self._workers)]
        entries = self._get([consensus, *shards], "save its state")
        return {"consensus": entries[0], "shards": entries[1:]}

    def restore(self, folder: Folder, saved: Mapping[str, Any]) -> None:
        """See Fleet."""
        self._published = self._consensus.restore.remote(folder, saved["consensus"])
        shards = [worker.call.remote("restore", folder, saved["shards"]) for worker in self._workers]
        self._get([self._published, *shards], "load its state")

    def close(self) -> None:
        """See Fleet."""
        for actor in [*self._workers, self._consensus]:
            ray.kill(actor)

    def _get(self, references: list[Any], doing: str, patience: float = PATIENCE) -> list[Any]:
        """Wait for small answers as they come, so that the first failure is seen at once."""
        waiting, until = list(references), time.monotonic() + patience
        while waiting:
            done, waiting = ray.wait(waiting, timeout=max(0.0, until - time.monotonic()), fetch_local=False)
            if not done:
                raise PisaError(
                    f"a worker did not {doing} within {patience:g} s: is the cluster large enough and alive?"
                )
            for reference in done:
                self._check(reference, doing)
        try:
            return list(ray.get(references, timeout=60))
        except GetTimeoutError as error:
            raise PisaError(f"the answers of workers asked to {doing} were lost: {error}") from error

    def _check(self, reference: Any, doing: str) -> None:
        """Raise what went wrong in a finished call, in the user's terms."""
        try:
            ray.get(reference, timeout=60)
        except RayTaskError as error:
            if isinstance(error.cause, PisaError):
                raise error.cause from None
            if isinstance(error.cause, GONE):
                raise _died(error.cause, doing) from error
            raise PisaError(f"a worker failed to {doing}: {error.cause!r}") from error
        except GONE as error:
            raise _died(error, doing) from error


def _died(error: BaseException, doing: str) -> WorkerDiedError:
    return WorkerDiedError(
        f"a process died when it was to {doing} ({type(error).__name__}): go on from the last checkpoint with --resume."
    )


def _import_from(path: list[str]) -> None:
    """Let a process import what the driver can: the user's own modules, where they lie at the same place."""
    sys.path.extend(folder for folder in path if folder not in sys.path)
