"""What decides who takes part: room, patience, environments, messages that come twice or late. Without Ray."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import plain_net, run, uneven

from pisa_ray import SISA, ConfigError, Data, Indices, PisaError
from pisa_ray.actors import Staffing, Wanted, elastic, processes
from pisa_ray.actors.crew import Crew, Member
from pisa_ray.actors.elastic import Elastic
from pisa_ray.actors.session import RayResources
from pisa_ray.algorithm import Layout, RowLayout, TreeSum
from pisa_ray.engine.consensus import Consensus
from pisa_ray.engine.reports import Payload, RoundSpec, WorkerInfo
from pisa_ray.engine.worker import Worker
from pisa_ray.errors import StoppedWaitingError
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


class FakeCrew:
    """Processes that are ready as soon as they are started."""

    def __init__(self, nodes=("a",)):
        self.members, self.starting, self.rests_until, self.nodes, self.count = [], [], -float("inf"), nodes, 0

    def start(self, plans):
        for _ in plans:
            node = self.nodes[self.count % len(self.nodes)]
            self.starting.append(SimpleNamespace(id=self.count, node=node, site=None, info=None, shards=[]))
            self.count += 1

    def arrivals(self):
        came, self.starting = self.starting, []
        self.members += came
        return came

    def wait_for_arrivals(self, seconds):
        pass


@pytest.fixture
def cluster(monkeypatch):
    """A cluster in words: room for more workers, nodes that are leaving, what the autoscaler was asked."""
    told = SimpleNamespace(room=0, draining=set(), asked=[], events=[])
    monkeypatch.setattr(elastic, "room", lambda resources, in_all=False: told.room)
    monkeypatch.setattr(elastic, "draining", lambda: told.draining)
    monkeypatch.setattr(elastic, "can_grow", lambda: True)
    monkeypatch.setattr(elastic, "ask_autoscaler", lambda resources, n: told.asked.append(n))
    return told


def make(cluster, crew, least, most, stop=lambda: False, staffed=False, **more):
    def tell(kind, **fields):
        cluster.events.append((kind, fields))

    staffing = Staffing(Wanted(least, most, look_every=0.0, **more), staffed=staffed)
    return Elastic(crew, staffing, RayResources(), tell, stop, lambda sites: [()] * len(sites), lambda: range(9))


def test_as_many_workers_as_there_is_room_for_and_more_when_there_is_more(cluster, monkeypatch):
    crew = FakeCrew()
    it = make(cluster, crew, 1, 3)
    cluster.room = 1
    monkeypatch.setattr(elastic, "SETTLE", 0.0)
    crew.start([()])
    cluster.room = 0
    it.staff()
    assert len(crew.members) == 1
    cluster.room = 0
    assert it.look() == ([], [])
    it.look()
    assert cluster.asked == [3]
    cluster.room = 9
    it.look()
    arrived, leaving = it.look()
    assert (len(arrived), leaving, len(crew.members)) == (2, [], 3)
    it.resize(1)
    cluster.room = 0
    _, leaving = it.look()
    assert [m.id for m in leaving] == [1, 2]
    it.close()
    assert cluster.asked[-1] == 0


def test_workers_of_draining_nodes_go_once_others_can_do_without_them(cluster):
    crew = FakeCrew(nodes=("a", "b"))
    it = make(cluster, crew, 2, 2)
    cluster.room = 2
    it.staff()
    cluster.room, cluster.draining = 0, {"b"}
    _, leaving = it.look()
    assert leaving == []  # two are wanted, and there is room for no third
    assert [kind for kind, _ in cluster.events] == ["draining"]
    crew.nodes, cluster.room = ("c",), 1
    it.look()
    _, leaving = it.look()
    assert [m.node for m in leaving] == ["b"]


def test_patience_is_bounded_and_waiting_can_be_stopped(cluster):
    it = make(cluster, FakeCrew(), 2, 3, patience=0.3)
    with pytest.raises(ConfigError, match=r"room for 0 of at least 2 workers of 1 CPU each within 0.3 s: use fewer"):
        it.staff()
    # A run that had its workers once failed, it was not asked for too much.
    it = make(cluster, FakeCrew(), 2, 3, patience=0.3, staffed=True)
    with pytest.raises(PisaError) as error:
        it.staff()
    assert not isinstance(error.value, ConfigError)
    with pytest.raises(StoppedWaitingError):
        make(cluster, FakeCrew(), 1, 1, stop=lambda: True).staff()


def test_a_worker_that_computes_differently_is_refused_unless_exact_is_false(monkeypatch):
    for exact in (True, False):
        told, ended = [], []
        monkeypatch.setattr(processes, "end", ended.append)
        monkeypatch.setattr(ray, "put", lambda job: None)

        def tell(kind, told=told, **fields):
            told.append((kind, fields.get("message")))

        crew = Crew(None, RayResources(), tell, exact=exact)
        one = Member("one", None, id=0, info=WorkerInfo(1, "a", "cpu", {"torch": "2", "threads": 1}))
        other = Member("other", None, id=1, info=WorkerInfo(2, "b", "cpu", {"torch": "3", "threads": 1}))
        assert crew.accept(one)
        assert crew.accept(other) is not exact
        assert told == [("worker_refused" if exact else "inexact", "torch is 3, not 2")]
        assert ended == (["other"] if exact else [])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(0, 10**6), st.data())
def test_messages_count_once_whatever_comes_twice_late_or_in_any_order(shards, seed, data):
    """Workers deliver in any order, some twice; late ones of earlier rounds and fenced ones come between."""
    dice = random.Random(seed)
    p = 5
    rows = [torch.randn(p + 2, generator=torch.Generator().manual_seed(seed + i)) for i in range(shards)]
    for row in rows:
        row[p:] = row[p:].abs() + 0.1

    def payload(part):
        tree = TreeSum(shards)
        for i in part:
            tree.add((0, i), rows[i])
        return Payload([(node, values.numpy().copy()) for node, values in tree.nodes().items()], [])

    def fresh():
        job = SimpleNamespace(
            method=SISA(sigma=1, rho=200),
            shards=range(shards),
            present=range(shards),
            robust=None,
            clips=False,
            messages_stand=False,
            reporters=lambda round_: range(shards),
            rows=lambda layout, b: RowLayout(layout.size, 1, b),
        )
        return Consensus(job, Layout.of([("w", (p,), False)]), np.zeros(p, np.float32))

    plain = fresh()
    assert plain.add(1, 0, payload(range(shards)))
    expected = plain.update(RoundSpec(1, 1.0, False))[0].tobytes()

    hosts = [data.draw(st.integers(0, 3)) for _ in range(shards)]
    parts = [[i for i in range(shards) if hosts[i] == k] for k in range(4)]
    calls = [(1, k, part) for k, part in enumerate(parts) if part] * 2
    calls += [(0, 90 + k, part) for k, part in enumerate(parts) if part]  # of the round before
    calls += [(2, 95, range(shards))]  # of the next: it cannot be, but does no harm
    dice.shuffle(calls)
    disturbed = fresh()
    assert not disturbed.fence(1, 99)
    accepted = []
    for round_, ticket, part in calls:
        if disturbed.add(round_, ticket, payload(part)):
            accepted.append(ticket)
        assert not disturbed.add(1, 99, payload(part))  # fenced off for good
    assert sorted(accepted) == [k for k, part in enumerate(parts) if part]
    assert all(disturbed.fence(1, ticket) for ticket in accepted)
    assert disturbed.update(RoundSpec(1, 1.0, False))[0].tobytes() == expected
    assert disturbed.update(RoundSpec(1, 1.0, False))[0].tobytes() == expected  # asked for again, once it has been done
    assert disturbed.fence(1, 99)  # nothing of that round is missing any more
    assert disturbed.add(2, 99, payload(range(shards)))  # a fence is for its round


def failing(x: torch.Tensor, training: bool) -> torch.Tensor:
    if training and len(x) == 3:
        raise KeyError("a bug of the user's")
    return x


def test_an_error_in_user_code_names_shard_and_row_groups(tmp_path):
    table = pa.table({"x": np.arange(40, dtype=np.float32), "y": np.arange(40) % 2})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=10)
    with pytest.raises(PisaError, match=r"^shard 1 in round 1 \(rows from row groups 1, 3\): KeyError: .*failing\)\.$"):
        run(
            tmp_path / "run",
            model=lambda: torch.nn.Linear(1, 2),
            data=Data(train=tmp_path / "rows.parquet", input="x", label="y", transform=failing),
            partition=Indices(((0, 1), (12, 35, 36))),
            batch_size=None,
        )
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"


def test_an_update_that_waited_for_what_is_fenced_off_changes_nothing():
    """A frozen worker wakes: its delivery is refused, and so is the update that was asked for with it."""
    job = prepare(
        Config(
            model=plain_net,
            data=Data(train="digits"),
            partition=uneven(),
            algorithm=SISA(sigma=0.3, rho=200),
            participation=0.5,
        )
    ).job
    worker = Worker(job, process_is_ours=False)
    worker.host(range(len(job.shards)))
    consensus = Consensus(job, worker.model.layout, worker.model.published())
    first, _ = worker.step(RoundSpec(1, 0.3, False), consensus.publish())
    assert consensus.add(1, 0, first)
    w, _ = consensus.update(RoundSpec(1, 0.3, False), [0])
    w = w.copy()
    some, others = job.reporters(2)[:1], job.reporters(2)[1:]
    late, _ = worker.step(RoundSpec(2, 0.3, False), w, some)
    assert not consensus.fence(2, 1)
    assert not consensus.add(2, 1, late)
    rest, _ = worker.step(RoundSpec(2, 0.3, False), w, others)
    assert consensus.add(2, 2, rest)
    with pytest.raises(ValueError, match="waits for deliveries that are fenced off"):
        consensus.update(RoundSpec(2, 0.3, False), [1, 2])
    assert consensus.publish().tobytes() == w.tobytes()
