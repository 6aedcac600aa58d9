"""Who hosts a shard, what else is there, and what was done before change no bit of what it says."""

from __future__ import annotations

import random
from copy import deepcopy

import numpy as np
import pytest
import torch
from problems import state_sha256
from runs import METHODS, Rich, uneven

from pisa_ray import Data
from pisa_ray.engine.consensus import Consensus
from pisa_ray.engine.reports import PastRound, RoundSpec
from pisa_ray.engine.worker import Worker
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


def augment(x: torch.Tensor, training: bool) -> torch.Tensor:
    if not training:
        return x
    return x + 0.1 * torch.randn_like(x) + 0.1 * np.random.rand() + 0.1 * random.random()


def job(method, **changes):
    """A model with dropout, BatchNorm and constants that it writes to, on shards of unequal size, augmented."""
    data = Data(train="digits", transform=augment)
    return prepare(
        Config(model=Rich, data=data, partition=uneven(), algorithm=METHODS[method], batch_size=16, **changes)
    ).job


def worker_of(of, shards):
    worker = Worker(of, process_is_ours=False)
    worker.host(shards)
    return worker


def states(*workers):
    return {i: state_sha256(shard.state) for worker in workers for i, shard in worker.shards.items()}


SIGMAS = (1.0, 1.5, 2.5)


def played(of, workers, between=lambda round_: None):
    """The w's of some rounds: the first to begin with, and each that they make."""
    consensus = Consensus(of, workers[0].model.layout, workers[0].model.published())
    made = [consensus.publish().copy()]
    for round_, sigma in enumerate(SIGMAS, start=1):
        for ticket, worker in enumerate(workers):
            payload, _ = worker.step(RoundSpec(round_, sigma, round_ % 2 == 0), made[-1])
            assert consensus.add(round_, ticket, payload)
        made.append(consensus.update(RoundSpec(round_, sigma, round_ % 2 == 0))[0].copy())
        between(round_)
    return made


@pytest.mark.parametrize(("method", "participation"), [("sisa_local", 0.5), ("scaffold", 1.0)])
def test_shards_may_be_together_or_apart_and_move(method, participation):
    of = job(method, participation=participation)
    alone = worker_of(of, range(7))
    straight = played(of, [alone])
    apart = [worker_of(of, shards) for shards in ([6, 2], [0], [5, 1, 4, 3])]

    def move(round_):
        for i in (6, 3):
            here, there = (0, 2) if i in apart[0].shards else (2, 0)
            apart[there].host([i], apart[here].release([i]))

    assert all(map(np.array_equal, played(of, apart, move), straight))
    assert states(*apart) == states(alone)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_lost_shard_is_rebuilt_from_an_older_state_and_the_rounds_since(kept):
    """Each with its own penalty, w and reporters, on a worker that has done other things meanwhile."""
    of = job("nsisa", participation=0.5)
    alone, safe = worker_of(of, range(7)), {}

    def keep(round_):
        if round_ == kept:
            safe.update({i: deepcopy(shard.state) for i, shard in alone.shards.items()})

    published = played(of, [alone], keep)
    another = worker_of(of, [4])
    another.step(RoundSpec(1, 9.0, True), published[0])
    rounds = [
        PastRound(RoundSpec(r, SIGMAS[r - 1]), frozenset(of.reporters(r))) for r in range(kept + 1, len(SIGMAS) + 1)
    ]
    another.host([5, 2])
    for i in (5, 2):
        if safe:
            another.shards[i].state.load(safe[i].tensors(), safe[i].scalars())
    another.replay([5, 2], rounds, published[kept:-1])
    found, expected = states(another), states(alone)
    assert [found[i] for i in (5, 2)] == [expected[i] for i in (5, 2)]


def test_a_mini_batch_made_ahead_is_used_where_it_is_the_next_and_nowhere_else():
    of = job("sisa_local")
    plain, ahead = worker_of(of, range(7)), worker_of(of, range(7))
    published = plain.model.published()
    for worker in (plain, ahead):
        worker.step(RoundSpec(1, 1.0, False), published)
    ahead.prefetch(range(7))
    plain.step(RoundSpec(2, 1.0, False), published)
    ahead.step(RoundSpec(2, 1.0, False), published)
    assert states(ahead) == states(plain)
    ahead.prefetch(range(7))
    for worker in (plain, ahead):
        worker.host(range(7))  # at their initial states again
        worker.step(RoundSpec(1, 1.0, False), published)
    assert states(ahead) == states(plain)
