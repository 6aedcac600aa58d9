"""Processes die, freeze, come and go in mid-round: the bits are those of the run to which nothing happened."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from chaos import Chaos, Fault, schedule, shaken
from runs import Rich, events, plain_net, run, states, trajectory
from torch import nn

from pisa_ray.errors import WorkerDiedError
from pisa_ray.trainer.settings import Run, Scaling

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


class Sluggish(nn.Module):
    """The plain network, with a pause in the process whose number is in a file."""

    def __init__(self, slow: Path) -> None:
        super().__init__()
        self.net, self.slow = plain_net(), slow

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.slow.exists() and self.slow.read_text() == str(os.getpid()):
            time.sleep(0.05)
        return self.net(x)


#: Frozen processes are noticed soon, and room for more workers too.
QUICK = {"frozen_after": 2.0, "look_every": 0.1, "patience": 60.0}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(tmp_path_factory.mktemp("undisturbed") / "run", rounds=16, model=Rich, method="nsisa")


def shake(path: Path, faults: list[Fault], workers: int | tuple[int, int] = 2, **changes: Any):
    least, most = workers if isinstance(workers, tuple) else (workers, workers)
    with shaken(Chaos(faults, path.parent / "faults.jsonl")) as chaos:
        result = run(
            path, workers=Scaling(least, most, **QUICK), **{"rounds": 16, "model": Rich, "method": "nsisa", **changes}
        )
    assert len(chaos.happened()) == len(faults)
    return result


def assert_same(result, undisturbed):
    assert result.weights_sha256 == undisturbed.weights_sha256
    assert trajectory(result) == trajectory(undisturbed)
    assert states(result) == states(undisturbed)


CASES = {
    "one of two": (2, [Fault(3, "kill")]),
    "the only one": (1, [Fault(5, "kill")]),
    "two at once": (3, [Fault(13, "kill two")]),
    "all at once": (2, [Fault(4, "kill two")]),
    "the survivor while it recovers": (2, [Fault(7, "kill", 0), Fault(8, "kill", 0)]),
    "frozen, and wakes when it was replaced": (2, [Fault(12, "freeze", 1)]),
    "consensus": (2, [Fault(6, "consensus kill")]),
    "consensus and a worker": (3, [Fault(6, "consensus kill"), Fault(6, "kill", 1)]),
    "twice and late": (2, [Fault(5, "duplicate"), Fault(9, "late")]),
    "slow": (2, [Fault(3, "slow")]),
    "in an evaluation, the round's sum complete": (2, [Fault(4, "kill", 1, "evaluate")]),
    "two in an evaluation": (3, [Fault(4, "kill two", 0, "evaluate")]),
    "in the last evaluation": (2, [Fault(16, "kill", 0, "evaluate")]),
    "after the last round, while it is saved": (2, [Fault(16, "kill", 1, "save")]),
    "frozen while it is saved": (2, [Fault(16, "freeze", 1, "save")]),
    "after a snapshot was asked for": (2, [Fault(10, "kill", 1, "snapshot")]),
    "false alarms": (2, [Fault(3, "false alarm"), Fault(4, "false alarm", 0, "evaluate"), Fault(9, "kill")]),
    "two, then the consensus, in one round": (4, [Fault(6, "kill two", 0), Fault(6, "consensus kill", 0, "begin")]),
}


#: The rest takes minutes; .ci/run has it.
FIRST = ("the only one", "two at once", "frozen, and", "consensus and", "twice and", "after the last")


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if c.startswith(FIRST) else pytest.mark.slow) for c in CASES]
)
def test_what_dies_in_a_round_is_rebuilt(tmp_path, undisturbed, case):
    workers, faults = CASES[case]
    result = shake(tmp_path / "run", faults, workers)
    assert_same(result, undisturbed)
    died = events(tmp_path / "run", "worker_died")
    killed = {
        pid
        for f in map(json.loads, (tmp_path / "faults.jsonl").read_text().splitlines())
        if f["kind"] in ("kill", "kill two", "freeze")
        for pid in f["pids"]
    }
    assert {e["pid"] for e in died} == killed
    assert bool(events(tmp_path / "run", "consensus_died")) == ("consensus" in case)
    moved = {i for e in events(tmp_path / "run", "recovered") for i in e["shards"]}
    assert moved >= {i for e in died for i in e["shards"]}
    assert not events(tmp_path / "run", "resumed")  # nothing was restarted from a checkpoint
    assert [e["round"] for e in events(tmp_path / "run", "checkpoint_saved")] == [16]


def test_where_few_report_what_dies_is_rebuilt(tmp_path):
    """The messages of absent shards survive workers and the consensus."""
    settings = {"method": "mifa", "participation": 0.3}
    calm = run(tmp_path / "calm", rounds=16, model=Rich, **settings)
    faults = [Fault(4, "kill", 1), Fault(9, "consensus kill"), Fault(13, "kill two")]
    assert_same(shake(tmp_path / "run", faults, 3, **settings), calm)


def test_workers_come_and_go(tmp_path, undisturbed):
    faults = [Fault(3, "grow"), Fault(7, "grow"), Fault(11, "shrink"), Fault(12, "shrink")]
    result = shake(tmp_path / "run", faults, 1, rounds=16)
    assert_same(result, undisturbed)
    assert events(tmp_path / "run", "worker_left")
    assert events(tmp_path / "run", "shard_moved")


def test_a_slow_worker_gets_fewer_shards(tmp_path):
    undisturbed = run(tmp_path / "undisturbed", rounds=60, evaluate_every=60)
    slow = tmp_path / "slow"
    model = partial(Sluggish, slow)
    result = shake(
        tmp_path / "run",
        [Fault(2, f"slow from now on: {slow}", 1)],
        2,
        rounds=60,
        evaluate_every=60,
        model=model,
        method="sisa",
    )
    assert result.weights_sha256 == undisturbed.weights_sha256
    moved = events(tmp_path / "run", "shard_moved")
    started = {e["pid"]: e["worker"] for e in events(tmp_path / "run", "worker_started")}
    assert moved
    assert moved[0]["before"] == started[int(slow.read_text())]


@pytest.mark.slow
@pytest.mark.parametrize("donor", [0, 1])
def test_death_while_shards_move(tmp_path, undisturbed, donor):
    result = shake(tmp_path / "run", [Fault(5, "grow"), Fault(5, "kill", donor, "move")], 2)
    assert_same(result, undisturbed)
    assert len(events(tmp_path / "run", "worker_died")) == 1


def test_states_lost_for_good_are_taken_from_the_last_checkpoint(tmp_path, undisturbed, monkeypatch):
    """What no single fault does: all copies of a snapshot are gone when a worker dies."""
    from pisa_ray.actors.snapshots import Snapshots
    from pisa_ray.errors import StatesLostError

    def gone(self, shards, before=Snapshots.sources):
        if self.round >= 6:
            monkeypatch.undo()
            raise StatesLostError("no snapshot is left.")
        return before(self, shards)

    monkeypatch.setattr(Snapshots, "sources", gone)
    result = shake(tmp_path / "run", [Fault(14, "kill")], 2, checkpoint_every=6)
    assert_same(result, undisturbed)
    (resumed,) = events(tmp_path / "run", "resumed")
    assert resumed["checkpoint"].startswith("round-000012")
    assert events(tmp_path / "run", "states_lost")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_seeded_chaos(tmp_path, seed):
    undisturbed = run(tmp_path / "undisturbed", rounds=40, evaluate_every=10, model=Rich)
    result = shake(
        tmp_path / "shaken", schedule(seed, 40, 9), 3, rounds=40, evaluate_every=10, method="sisa", checkpoint_every=7
    )
    assert_same(result, undisturbed)
    other = run(tmp_path / "other", rounds=40, evaluate_every=10, model=Rich, seed=1)
    assert other.weights_sha256 != undisturbed.weights_sha256


def test_max_failures_is_obeyed(tmp_path):
    with pytest.raises(WorkerDiedError, match=r"1 processes died, more than max_failures 0: resume=True"):
        shake(tmp_path / "run", [Fault(4, "kill")], run_config=Run(tmp_path / "run", max_failures=0))
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"
