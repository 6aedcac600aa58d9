"""The values that workers, the consensus and the driver send each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pisa_ray.algorithm.diagnostics import ShardDiagnostics
from pisa_ray.algorithm.message import Node

#: Sums by tree node, ready to be sent: float32 arrays of equal length.
Nodes = list[tuple[Node, np.ndarray]]


@dataclass(frozen=True)
class WorkerInfo:
    """The process and the machine of a worker.

    Attributes:
        pid: The id of its process.
        node: The name of its machine.
        device: The device of its model.
        environment: The numeric environment; see numerics.environment.
        bfloat16: Whether the device multiplies matrices faster in bfloat16 than in float32.
    """

    pid: int
    node: str
    device: str
    environment: Mapping[str, str | int] = field(default_factory=dict)
    bfloat16: bool = False


@dataclass(frozen=True)
class RoundSpec:
    """The description of a round that the round loop gives, and workers and the consensus get.

    Attributes:
        number: The round, from 1.
        sigma: Its penalty.
        diagnose: Whether reports have diagnostics and payloads the duals.
    """

    number: int
    sigma: float
    diagnose: bool = False


@dataclass(frozen=True)
class PastRound:
    """A round that a worker is asked to step through again.

    Attributes:
        spec: The round.
        reporters: The shards that reported at its w, and whose messages counted, then or later.
    """

    spec: RoundSpec
    reporters: frozenset[int]


@dataclass(frozen=True)
class Payload:
    """The arrays that a worker sends to the consensus.

    Attributes:
        messages: The sums of its shards' messages by tree node, [width] each; if messages stand, each message by
            itself.
        duals: The same sums of alpha_i pi_i', [p] each, in rounds with diagnostics.
    """

    messages: Nodes
    duals: Nodes

    @property
    def nbytes(self) -> int:
        """The size of all arrays."""
        return sum(array.nbytes for _, array in [*self.messages, *self.duals])


@dataclass(frozen=True)
class ShardReport:
    """The numbers of one shard's report."""

    loss: float
    samples: int
    finite: bool
    diagnostics: ShardDiagnostics | None


@dataclass(frozen=True)
class WorkerReport:
    """The numbers that a worker sends to the driver after its part of a round.

    Attributes:
        shards: The reports of its shards.
        bytes_sent: Size of the payload.
        gradient_seconds: Time spent on gradients.
        seconds: Time of the whole part.
        began: When the part began, by the worker's clock.
    """

    shards: dict[int, ShardReport]
    bytes_sent: int
    gradient_seconds: float
    seconds: float
    began: float


@dataclass(frozen=True)
class ConsensusReport:
    """The numbers of the w that the consensus has just made.

    Attributes:
        finite: Whether w is finite.
        seconds: Time spent adding and updating.
        move: ||w^{r+1} - w^r||, in rounds with diagnostics.
        residual: ||sum alpha_i pi_i - lambda w||, the stationarity error up to noise; None without duals.
        regulariser: (lambda/2) ||w^r||^2.
    """

    finite: bool
    seconds: float
    move: float | None = None
    residual: float | None = None
    regulariser: float | None = None


@dataclass(frozen=True)
class RoundReport:
    """All numbers of a round, with the shards in the order of their ids."""

    shards: dict[int, ShardReport]
    consensus: ConsensusReport
    bytes_sent: int
    gradient_seconds: float
    worker_seconds: tuple[float, ...]

    @classmethod
    def of(cls, workers: list[WorkerReport], consensus: ConsensusReport, bytes_sent: int) -> RoundReport:
        """Merge the workers' reports; if a shard has two, the later one counts, with the samples of both."""
        shards: dict[int, ShardReport] = {}
        for worker in workers:
            for i, report in worker.shards.items():
                before = shards[i].samples if i in shards else 0
                shards[i] = replace(report, samples=report.samples + before)
        return cls(
            dict(sorted(shards.items())),
            consensus,
            bytes_sent,
            sum(worker.gradient_seconds for worker in workers),
            tuple(worker.seconds for worker in workers),
        )
