"""What the round loop asks of its workers and consensus, wherever they are; and the fleet that is this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pisa_ray.engine.consensus import Consensus, ConsensusReport
from pisa_ray.engine.evaluation import Sums
from pisa_ray.engine.files import Folder
from pisa_ray.engine.job import Job
from pisa_ray.engine.worker import ShardReport, Worker, WorkerInfo, WorkerReport

#: Entries of the files of a checkpoint, by who wrote them: {"consensus": entry, "shards": [entry, ...]}.
Saved = dict[str, Any]
#: Asks for the sums of an evaluation, by block or shard; waits where they are not ready.
Pending = Callable[[], dict[int, Sums]]


@dataclass(frozen=True)
class RoundReport:
    """All small numbers of a round, shards in the order of their ids."""

    shards: dict[int, ShardReport]
    consensus: ConsensusReport
    bytes_sent: int
    gradient_seconds: float
    worker_seconds: tuple[float, ...]

    @classmethod
    def of(cls, workers: list[WorkerReport], consensus: ConsensusReport, bytes_sent: int) -> RoundReport:
        """Merge the workers' reports."""
        shards = {i: report for worker in workers for i, report in worker.shards.items()}
        return cls(
            dict(sorted(shards.items())),
            consensus,
            bytes_sent,
            sum(worker.gradient_seconds for worker in workers),
            tuple(worker.seconds for worker in workers),
        )


class Fleet(Protocol):
    """Workers that host all shards, and a consensus. Between `begin` and `end` a round is under way."""

    def workers(self) -> list[WorkerInfo]:
        """Who the workers are, one per process."""

    def begin(self, round_: int, sigma: float, diagnose: bool) -> None:
        """Start a round at the published w; returns at once where workers are other processes."""

    def end(self) -> RoundReport:
        """Wait for the round; the next w is published."""

    def evaluate(self, split: str) -> Pending:
        """Evaluate "test" or "validation" (a separate source) at the w published when this is called."""

    def evaluate_shards(self, *, held_out: bool) -> Pending:
        """Evaluate each shard's own rows, held-out or training ones, at the w published when this is called."""

    def export(self, rounds: int, path: str) -> str:
        """Write the plain model at the published w; returns its weights_sha256."""

    def save(self, folder: Folder) -> Saved:
        """Write the whole state to files in a folder; returns their entries in the manifest."""

    def restore(self, folder: Folder, saved: Mapping[str, Any]) -> None:
        """Load what `save` wrote."""

    def close(self) -> None:
        """End the processes; nothing is lost that was saved."""


class LocalFleet:
    """One worker and the consensus in this process, without Ray: the same bits as any number of Ray workers."""

    def __init__(self, job: Job, *, gpu: bool = False) -> None:
        self._job, self._worker = job, Worker(job, gpu=gpu, process_is_ours=False)
        self._worker.host(range(len(job.shards)))
        model = self._worker.model
        self._consensus = Consensus(job.method, len(job.shards), model.layout.size, model.published())
        self._begun: tuple[int, float, bool] | None = None

    def workers(self) -> list[WorkerInfo]:
        """See Fleet."""
        return [self._worker.info()]

    def begin(self, round_: int, sigma: float, diagnose: bool) -> None:
        """See Fleet."""
        self._begun = round_, sigma, diagnose

    def end(self) -> RoundReport:
        """See Fleet."""
        if self._begun is None:
            raise RuntimeError("end() without begin()")
        (round_, sigma, diagnose), self._begun = self._begun, None
        payload, report = self._worker.step(round_, sigma, self._consensus.publish(), diagnose)
        self._consensus.add(payload)
        _, consensus = self._consensus.update(diagnose)
        return RoundReport.of([report], consensus, bytes_sent=0)

    def evaluate(self, split: str) -> Pending:
        """See Fleet."""
        source = self._job.test if split == "test" else self._job.validation
        blocks = range(self._job.evaluation_blocks(source)) if source else ()
        sums = self._worker.evaluate(self._consensus.publish(), split, blocks) if blocks else {}
        return lambda: sums

    def evaluate_shards(self, *, held_out: bool) -> Pending:
        """See Fleet."""
        sums = self._worker.evaluate_shards(self._consensus.publish(), held_out=held_out)
        return lambda: sums

    def export(self, rounds: int, path: str) -> str:
        """See Fleet."""
        return self._worker.export(self._consensus.publish(), rounds, path)

    def save(self, folder: Folder) -> Saved:
        """See Fleet."""
        return {
            "consensus": self._consensus.save(folder, "consensus.safetensors"),
            "shards": [self._worker.save(folder, "shards-0.safetensors")],
        }

    def restore(self, folder: Folder, saved: Mapping[str, Any]) -> None:
        """See Fleet."""
        self._worker.restore(folder, saved["shards"])
        self._consensus.restore(folder, saved["consensus"])

    def close(self) -> None:
        """See Fleet."""
