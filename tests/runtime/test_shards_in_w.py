"""Shards that join or leave the problem while a run goes on: what w becomes, against sums by hand."""

from __future__ import annotations

import pytest
import torch
from runs import METHODS, plain_net

from pisa_ray import Data, Indices
from pisa_ray.engine.fleet import LocalFleet
from pisa_ray.engine.numerics import borrowed_process
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.trainer.changes import Asked, Changes
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


def job_of(**changes):
    arguments = {
        "model": plain_net,
        "data": Data(train="digits"),
        "partition": Indices(tuple(tuple(range(20 * i, 20 * i + 10 + i)) for i in range(5))),
        "algorithm": METHODS["sisa"],
        "batch_size": 4,
        **changes,
    }
    return prepare(Config(**arguments))


def step(fleet, round_, sigma=0.3):
    fleet.begin(RoundSpec(round_, sigma, False))
    report = fleet.end()
    return fleet.consensus.publish().copy(), list(report.shards)


def in_a_tree(rows):
    """The canonical sum, written down once more: pairs of neighbours, level by level."""
    level = dict(rows)
    while set(level) != {0}:
        parents = sorted({i // 2 for i in level})
        level = {
            k: level[2 * k] + level[2 * k + 1]
            if {2 * k, 2 * k + 1} <= set(level)
            else level.get(2 * k, level.get(2 * k + 1))
            for k in parents
        }
    return level[0]


def consensus_by_hand(job, rows):
    total = job.rows(job.build_model().layout, 0).split(in_a_tree(rows))
    return (total.N / (total.M + job.method.lam * total.weight)).numpy()


def leaves(fleet, round_, w, shards):
    """Each shard's message of a round, by itself."""
    found = {}
    for i in shards:
        payload, _ = fleet.worker.step(RoundSpec(round_, 0.3, False), w, [i])
        ((_, row),) = payload.messages
        found[i] = torch.tensor(row)
    return found


@pytest.mark.parametrize("gone", [0, 2, 4])
def test_without_a_shard_w_is_made_of_the_other_messages(gone):
    """All report: the others take the steps that they would have taken, and the sum, by hand, lacks one message."""
    job = job_of().job
    with borrowed_process(1):
        fleet, twin = LocalFleet(job), LocalFleet(job)
        for round_ in (1, 2, 3):
            before, _ = step(fleet, round_)
            step(twin, round_)
        less = job.without(gone)
        fleet.change(less)
        w, reporters = step(fleet, 4)
        assert reporters == less.present == [i for i in range(5) if i != gone]
        rows = leaves(twin, 4, before, less.present)
        assert w.tobytes() == consensus_by_hand(job, rows).tobytes()
        everybody = rows | leaves(twin, 4, before, [gone])
        assert w.tobytes() != consensus_by_hand(job, everybody).tobytes()
        assert set(fleet.worker.shards) == set(less.present)
        for i in less.present:
            assert torch.equal(fleet.worker.shards[i].state.dual, twin.worker.shards[i].state.dual)


@pytest.mark.parametrize("gone", [0, 2, 4])
def test_what_a_removed_shard_has_said_leaves_the_standing_sum(gone):
    job = job_of(participation=0.4).job
    with borrowed_process(1):
        fleet = LocalFleet(job)
        for round_ in (1, 2, 3):
            step(fleet, round_)
        fleet.change(job.without(gone))
        for round_ in range(4, 9):
            w, reporters = step(fleet, round_)
            assert len(reporters) == 2  # 0.4 of the four that are left
            assert gone not in reporters
            said = {i: hosted.state.said for i, hosted in fleet.worker.shards.items()}
            assert set(said) == set(range(5)) - {gone}
            assert w.tobytes() == consensus_by_hand(job, said).tobytes()


@pytest.mark.parametrize("participation", [1.0, 0.4])
def test_with_another_shard_w_has_its_message_at_its_weight(participation, extra):
    """It begins with its initial state at the newest w, though the tree is one level higher only for the ninth."""
    prepared = job_of(
        participation=participation, partition=Indices(tuple(tuple(range(20 * i, 20 * i + 10 + i)) for i in range(4)))
    )
    changes, job = Changes(prepared), prepared.job
    with borrowed_process(1):
        fleet = LocalFleet(job)
        for round_ in (1, 2):
            before, _ = step(fleet, round_)
        more, change = changes.made(job, Asked.to_add(extra), round_=2)
        assert (change["shard"], change["rows"], more.alpha[4]) == (4, 60, 60 / (10 + 11 + 12 + 13))
        assert more.alpha[:4] == job.alpha
        fleet.change(more)
        w, reporters = step(fleet, 3)
        assert 4 in reporters
        assert reporters == more.reporters(3)
        state = fleet.worker.shards[4].state
        assert (state.reports, state.version) == (1, 3)
        if participation < 1:
            said = {i: hosted.state.said for i, hosted in fleet.worker.shards.items()}
            assert w.tobytes() == consensus_by_hand(more, said).tobytes()
        else:  # again from the same states, one by one
            twin = LocalFleet(job)
            for round_ in (1, 2):
                step(twin, round_)
            twin.change(more)
            assert w.tobytes() == consensus_by_hand(more, leaves(twin, 3, before, range(5))).tobytes()
        fresh = LocalFleet(more)  # its first batch and its first dual are those of any shard's first report
        fresh.worker.step(RoundSpec(3, 0.3, False), before, [4])
        assert torch.equal(fresh.worker.shards[4].state.dual, state.dual)
        seen = [4 in step(fleet, round_)[1] for round_ in range(4, 12)]
        assert all(seen) if participation == 1 else 0 < sum(seen) < 8


def test_a_newcomers_weight_where_all_weigh_the_same(extra):
    prepared = job_of(shard_weights="uniform")
    job, _ = Changes(prepared).made(prepared.job, Asked.to_add(extra), 0)
    assert job.alpha == (1 / 5,) * 6
    assert job.without(1).without(5).present == [0, 2, 3, 4]
