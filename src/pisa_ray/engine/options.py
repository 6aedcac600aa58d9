"""Options that a job is computed by: how rows are batched, and which shards take part in a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le

from pisa_ray import checks
from pisa_ray.algorithm.robust import Robust
from pisa_ray.engine.asynchrony import Asynchronous
from pisa_ray.fields import FREE, Count, Limit
from pisa_ray.options import Options

_SHARDS = checks.sequence(checks.whole(least=0), "a list of shards")
_REPORTERS = checks.number(above=0, most=1) | checks.sequence(
    _SHARDS, "a list of the shards of each round, such as [[0, 1], [2, 3]]"
)

if TYPE_CHECKING:
    from pisa_ray.engine.participation import Participation

    #: A node label, and for each shard its value where the shard must stay; None: anywhere.
    PinTo = Mapping[str, Sequence[str | None]]
    Rows = int | Literal["full"] | None
    Autocast = bool | Literal["bfloat16"]
else:
    PinTo = Annotated[
        dict[str, tuple[str | None, ...]],
        checks.mapping(checks.within, "a dictionary such as {'site': ['lyon', 'bonn']}"),
    ]
    Rows = Annotated[Any, checks.whole(least=1) | checks.choice("full") | checks.nothing.then(lambda value: "full")]
    Autocast = Annotated[
        Any, checks.flag.then(lambda value: "bfloat16" if value else False) | checks.choice("bfloat16")
    ]
    Participation = Annotated[Any, _REPORTERS]


@dataclass(frozen=True, kw_only=True)
class Batching(Options):
    """How gradients are computed.

    Attributes:
        seed: The seed of everything: initial weights, partition, batches, dropout.
        batch_size: Rows of a mini-batch (one per shard and round, but for methods with local steps); "full" or None:
            the whole shard.
        micro_batch_size: Rows per backward pass; None: the whole batch.
        clip_norm: The largest norm of a shard's gradient; None: any.
        autocast: Whether forward passes run in bfloat16 autocast; parameters, duals and sums stay float32.
        threads_per_worker: Threads of a worker's numeric work; part of the result's definition, never derived.
        compiled: Whether steps are compiled to one pass over memory, which changes no bit. None: what the user's cache
            has is used, and what moves so many entries that it pays is compiled meanwhile; True: at once; False: never.
    """

    seed: Annotated[int, Ge(0)] = 0
    batch_size: Rows = 64
    micro_batch_size: Count | None = None
    clip_norm: Limit = None
    autocast: Autocast = False
    threads_per_worker: Annotated[int, Ge(1), Le(1024)] = 1
    compiled: Annotated[bool | None, FREE] = None

    def batch_of(self, rows: int) -> int:
        """Return the rows of a mini-batch of a shard that has so many."""
        return min(self.batch_size, rows) if isinstance(self.batch_size, int) else rows


@dataclass(frozen=True, kw_only=True)
class Membership(Options):
    """Which shards take part in a round.

    Attributes:
        participation: The share p of the m shards that report in a round: max(1, round(p m)) of them, keyed (seed,
            round); in round 1 all. Or lists of shards, [[0, 1], [2, 3]], for round 2, 3 and so on, from the first again
            after the last. For methods with a memory of all shards (duals, MIFA, SyncOptimizer(remember=True)) the last
            messages of the others stay in the sum; the other methods average over those that report.
        asynchronous: When a round ends without waiting for all shards; None: it does wait. Which messages arrived when
            is logged in arrivals.jsonl. In one process all do.
        pin_to: A node label, and for each shard its value where the shard must stay, as its rows may not leave:
            {"site": ["lyon", "bonn", None]}; None: anywhere. It is trained and evaluated by workers on such nodes only
            (`ray start --labels site=lyon`), and while there is none it does not report: its last message stays in the
            sum, and its state is kept elsewhere, as it was when it was last safe. Only for methods with a memory of all
            shards. Every place needs a worker, so there are at least as many; one that is away is not waited for,
            whatever the minimum. Data should be files, since what this process holds travels to all. It reads what it
            needs to cut the shards (labels, say), a mini-batch of the smallest one to try the model, and what a hash of
            the files takes; of a torch data set, which is in this process anyway, some items.
        robust: What is done against bad shards: TrimmedMean, Median or Clip; None: nothing. The first two need what
            every shard sends by itself, so workers send more.
    """

    participation: Participation = 1.0
    asynchronous: Asynchronous | None = None
    pin_to: PinTo | None = None
    robust: Robust | None = None
