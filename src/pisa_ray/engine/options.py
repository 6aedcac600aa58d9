"""Options of a job: how rows are batched, and which shards take part in a round."""

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
        batch_size: The rows of a mini-batch; a shard draws one in a round, or one for each local step. "full" or None:
            the whole shard.
        micro_batch_size: The rows of a backward pass, for less memory; None: the whole batch. The gradient is the same
            up to rounding if the loss is a plain mean over rows. If it divides by something else (class weights, the
            number of labels that are not -100), each piece divides by its own number, and the gradient differs.
        clip_norm: The largest norm of a gradient of a shard; None: any.
        autocast: Whether forward passes are in bfloat16; parameters, duals and sums stay float32. True is the same as
            "bfloat16".
        threads_per_worker: The threads of the numeric work of a worker. They are part of what defines the result, so a
            run never derives them from the machine.
        compiled: Whether steps are compiled to one pass over memory, with the same bits. None: code in the cache of the
            user is used, and steps that move enough entries to pay are compiled meanwhile. True: all steps are
            compiled. False: none is.
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
        participation: The share p of the m shards that report in a round: max(1, round(p m)) of them, chosen by (seed,
            round), with halves rounded to the even number; in round 1 all. Or lists of the shards of round 2, 3 and so
            on, such as [[0, 1], [2]], which repeat. For methods with a memory of all shards (those with duals, MIFA,
            and SyncOptimizer if it remembers) the last messages of absent shards stay in the sum; the other methods
            average over the reporters.
        asynchronous: When a round ends without waiting for all shards; None: it waits for its reporters. The log of
            which messages arrived when is arrivals.jsonl.
        pin_to: A label of nodes, and for each shard its value where the shard must stay, as its rows may not leave, or
            None for anywhere: `{"site": ["lyon", "bonn", None]}`. Such a shard is trained and evaluated by workers on
            nodes with that label only (`ray start --labels site=lyon`); while there is none, its last message stays in
            the sum. It is for methods with a memory of all shards, and needs at least as many workers as different
            values. None: shards may be anywhere.
        robust: A measure against bad shards; None: there is none.
    """

    participation: Participation = 1.0
    asynchronous: Asynchronous | None = None
    pin_to: PinTo | None = None
    robust: Robust | None = None
