"""The job: all that determines the result of a run, as one value that is sent to every worker."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pisa_ray.algorithm import Layout, Method, RowLayout
from pisa_ray.data import Distortion, Origin, Preprocess, Source
from pisa_ray.engine.flat_model import FlatModel
from pisa_ray.engine.numerics import seed_globals
from pisa_ray.engine.options import Batching, Membership
from pisa_ray.engine.participation import reporters

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Metrics = Callable[[torch.Tensor, torch.Tensor], Mapping[str, torch.Tensor]]


def classification_metrics(output: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """Return whether each row's largest output is its label, or the share of its places where that is so, [rows].

    Places with the label -100 are padding, which the loss leaves out, too.
    """
    hit = output.argmax(1) == target
    if hit.dim() == 1:
        return {"accuracy": hit}
    counted = (target != -100).flatten(1).sum(1, dtype=torch.float64)
    return {"accuracy": hit.flatten(1).sum(1, dtype=torch.float64) / counted}


@dataclass(frozen=True)
class Objective:
    """The loss and the metrics of a job.

    Attributes:
        loss: (model output, targets) -> the mean loss over the rows, a scalar.
        metrics: (model output, targets) -> name -> one value per row, [rows].
    """

    loss: Loss = functional.cross_entropy
    metrics: Metrics = classification_metrics


@dataclass(frozen=True)
class Joined:
    """A shard that joined the problem while a run went on.

    Attributes:
        source: A source of its rows and no others.
        round: The first round in which it reports.
    """

    source: Source
    round: int


@dataclass(frozen=True, kw_only=True)
class Job(Batching, Membership):
    """The mathematics and the data of a run.

    Attributes:
        model: Makes the model; it is called in every process after seeding, so that all models are equal.
        objective: Loss and metrics.
        method: PISA, SISA, NSISA, SISA-D or a baseline.
        train: The source of the shards' rows.
        preprocess: Makes model inputs of stored inputs.
        shards: Row ids of each shard in its source, [n_i] int64.
        alpha: Weights alpha_i of the shards; those of the founders have the sum 1.
        held_out: Row ids of each shard's validation rows in its source; they may be empty.
        joined: The last of `shards`, which joined while the run went on; the source of the others is `train`.
        removed: The ids of shards that have left the problem for good.
        validation: A separate validation source, or None.
        test: The test source, or None.
        distortions: The distortions of the shards' rows, in order.
        evaluation_rows: Rows per block of an evaluation; blocks are fixed, so sums do not depend on the workers.
    """

    model: Callable[[], nn.Module]
    objective: Objective
    method: Method
    train: Source
    preprocess: Preprocess
    shards: tuple[np.ndarray, ...]
    alpha: tuple[float, ...]
    held_out: tuple[np.ndarray, ...]
    joined: tuple[Joined, ...] = ()
    removed: frozenset[int] = frozenset()
    distortions: tuple[Distortion, ...] = ()
    validation: Source | None = None
    test: Source | None = None
    evaluation_rows: int = 1000

    def __post_init__(self) -> None:
        """Skip the checks of options, as they have been made already."""

    def build_model(self, device: torch.device | str = "cpu") -> FlatModel:
        """Make the initial model by torch.manual_seed(seed), then model(), so that it is the same in every process."""
        seed_globals(self.seed)
        return FlatModel(self.model(), device, getattr(self.method, "frozen", None))

    def reporters(self, round_: int, absent: Collection[int] = ()) -> Sequence[int]:
        """Return the shards that report in a round, ascending: all in round 1, and each newcomer in its first round.

        Args:
            round_: The round, from 1.
            absent: Shards that cannot report.
        """
        there = [i for i in self.present if i not in absent] if absent else self.present
        chosen = reporters(self.participation, there, self.seed, round_)
        newcomers = {self.founders + k for k, joined in enumerate(self.joined) if joined.round == round_} & set(there)
        return sorted({*chosen, *newcomers}) if newcomers else chosen

    @property
    def clips(self) -> bool:
        """Whether the changes of duals are limited."""
        return self.robust is not None and self.robust.clips

    @property
    def present(self) -> Sequence[int]:
        """The ids of the shards that are part of the problem, ascending."""
        ids = range(len(self.shards))
        return [i for i in ids if i not in self.removed] if self.removed else ids

    @property
    def founders(self) -> int:
        """The number m_0 of founders."""
        return len(self.shards) - len(self.joined)

    def source(self, shard: int) -> Source:
        """Return the source of a shard's rows."""
        return self.train if shard < self.founders else self.joined[shard - self.founders].source

    def without(self, shard: int) -> Job:
        """Return the same job without a shard."""
        return replace(self, removed=self.removed | {shard})

    def together_with(self, source: Source, alpha: float, round_: int) -> Job:
        """Return the same job with one more shard.

        Args:
            source: The source of its rows, all of which it trains on.
            alpha: Its weight alpha_i.
            round_: The first round in which it reports.
        """
        return replace(
            self,
            shards=(*self.shards, np.arange(source.rows)),
            alpha=(*self.alpha, alpha),
            held_out=(*self.held_out, np.empty(0, dtype=np.int64)),
            joined=(*self.joined, Joined(source, round_)),
        )

    @property
    def messages_stand(self) -> bool:
        """Whether the last message of each shard is stored by itself, in its state and by the consensus.

        It stays in the sums of rounds in which the shard does not report, or is compared with those of other shards.
        """
        if self.robust is not None and not self.clips:
            return True
        some = self.participation != 1 or self.asynchronous is not None or self.pin_to is not None
        return self.method.remembers and some

    def rows(self, layout: Layout, buffers: int) -> RowLayout:
        """Return the layout of a message, given the layout of w and the number of buffers."""
        norms = len(self.shards) if self.clips else 0
        return RowLayout(layout.size, self.method.penalties(layout).size, buffers, norms)

    def steps(self, shard: int) -> int:
        """Return the number of mini-batches of one report of a shard."""
        return self.method.gradients(len(self.shards[shard]), self.batch_rows(shard))

    def batch_rows(self, shard: int) -> int:
        """Return the number of rows of a mini-batch of a shard."""
        return self.batch_of(len(self.shards[shard]))

    def distort(
        self, x: torch.Tensor, y: torch.Tensor, shard: int, rows: np.ndarray, batch: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Distort model inputs and targets as in a shard.

        Args:
            x: Model inputs, [b, ...].
            y: Targets, [b, ...].
            shard: The shard that has the rows.
            rows: Their row ids in `train`, [b] int64.
            batch: The number of the mini-batch in the shard's stream, from 0; None: an evaluation.
        """
        origin = Origin(self.seed, shard, len(self.shards), rows, batch)
        for distortion in self.distortions:
            x, y = distortion(x, y, origin)
        return x, y

    def blocks(self, split: str, rows: int | None = None) -> range:
        """Return the blocks in which "test" or "validation" (a separate source), or so many of its rows, are evaluated.

        If there is no such source, there are no blocks.
        """
        source = self.test if split == "test" else self.validation
        number = 0 if source is None else source.rows if rows is None else min(rows, source.rows)
        return range(-(-number // self.evaluation_rows))
