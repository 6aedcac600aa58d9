"""Questions to all workers whose answers the driver puts together: evaluations, and gradients at a point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import ray

from pisa_ray.actors.calls import RECOVERIES, GoneError, answer, try_again
from pisa_ray.actors.core import Core
from pisa_ray.actors.crew import Member
from pisa_ray.algorithm import Slope
from pisa_ray.engine.fleet import Pending, added
from pisa_ray.errors import StatesLostError

#: Waits for answers by block, shard or tree node.
Answers = Callable[[], dict[Any, Any]]
#: Asks a worker about some blocks or shards at a published vector; returns a reference to its answers by key.
Ask = Callable[[Member, Any, Sequence[int]], Any]
#: Says which workers are asked about which of some blocks or shards.
Shares = Callable[[Sequence[int]], Iterable[tuple[Member, Sequence[int]]]]


class Evaluation:
    """Asks the workers of a fleet, and asks again what is lost when one of them dies.

    Args:
        core: What the parts of the fleet share.
        recover: Replaces what is lost.
        evaluators: The workers that evaluate test rows.
    """

    def __init__(self, core: Core, recover: Callable[[], None], evaluators: Callable[[], list[Member]]) -> None:
        self._core, self._recover, self._evaluators = core, recover, evaluators

    def evaluate(self, split: str, at: np.ndarray | None, rows: int | None) -> Pending:
        """See Fleet.evaluate."""

        def shares(wanted: Sequence[int]) -> Iterable[tuple[Member, Sequence[int]]]:
            members = self._evaluators()[: len(wanted)]
            return [(member, wanted[k :: len(members)]) for k, member in enumerate(members)]

        def ask(member: Member, w: Any, blocks: Sequence[int]) -> Any:
            return member.actor.call.remote("evaluate", w, split, blocks, rows)

        return self.gather(self._core.state.job.blocks(split, rows), shares, ask, at)

    def evaluate_shards(self, held_out: bool, at: np.ndarray | None, rows: int | None) -> Pending:
        """See Fleet.evaluate_shards."""

        def ask(member: Member, w: Any, shards: Sequence[int]) -> Any:
            return member.actor.call.remote("evaluate_shards", w, shards, held_out=held_out, rows=rows)

        return self.gather(self._present(), self._at_home, ask, at)

    def slope(self, point: np.ndarray) -> Slope:
        """See Fleet.slope."""

        def attempt() -> Slope:
            speakers = self._present()

            def ask(member: Member, w: Any, shards: Sequence[int]) -> Any:
                return member.actor.call.remote("slope", w, shards, speakers)

            nodes = self.gather(speakers, self._at_home, ask, point)()
            try:
                return added(nodes, len(self._core.state.job.shards), speakers)
            except ValueError as error:  # shards have gone away or come back meanwhile
                raise GoneError(str(error)) from error

        return try_again(attempt, self._recover, "the loss can be looked at")

    def gather(self, keys: Sequence[int], shares: Shares, ask: Ask, at: np.ndarray | None = None) -> Answers:
        """Ask now; the answers are put together when what is returned is called.

        Args:
            keys: Blocks or shards.
            shares: Says which workers are asked about which of them.
            ask: Asks a worker.
            at: The vector, [p + b + e]; None: the one published last.
        """
        published = self._core.state.published if at is None else ray.put(at)
        asked = [(ask(member, published, part), part) for member, part in shares(keys)]

        def answers() -> dict[Any, Any]:
            found: dict[Any, Any] = {}
            tries = 0
            while asked:
                reference, part = asked.pop()
                tries += 1
                try:
                    self._core.wait([reference], "evaluate")
                    found |= answer(reference, "evaluate")
                except GoneError:
                    if tries > RECOVERIES * len(keys):
                        raise StatesLostError("processes die faster than an evaluation can be done.") from None
                    self._recover()
                    asked.extend((ask(member, published, again), again) for member, again in shares(part))
            return dict(sorted(found.items()))

        return answers

    def _present(self) -> list[int]:
        """Return the shards that are not away."""
        absent = self._core.assignment.absent()
        return [i for i in self._core.assignment.shards if i not in absent]

    def _at_home(self, wanted: Sequence[int]) -> Iterable[tuple[Member, Sequence[int]]]:
        """Return which workers have the rows of which of some shards."""
        still = set(wanted)
        parts = [(m, [i for i in self._core.assignment.at_home(m) if i in still]) for m in self._core.crew.members]
        return [(member, part) for member, part in parts if part]
