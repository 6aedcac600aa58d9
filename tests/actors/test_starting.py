"""Starts that fail are tried again after growing pauses; what can never be is refused at once. Without Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pisa_ray import ConfigError, PisaError
from pisa_ray.actors import crew as crews
from pisa_ray.actors import elastic as elastics
from pisa_ray.actors import session
from pisa_ray.actors.calls import GoneError
from pisa_ray.actors.crew import START_PAUSES, Crew, Plan, Process
from pisa_ray.actors.elastic import Elastic, Staffing, Wanted
from pisa_ray.actors.session import RayResources
from pisa_ray.actors.sites import Sites
from pisa_ray.engine.reports import WorkerInfo
from pisa_ray.errors import RayLostError, StoppedWaitingError


@pytest.fixture
def cluster(monkeypatch):
    """A cluster in which time passes only while somebody waits, and starts fail as often as a test says."""
    it = SimpleNamespace(now=0.0, room=9, grows=True, failures=0, starts=[], events=[], gone=False)

    def start_worker(resources):
        it.starts.append(it.now)
        set_up = SimpleNamespace(remote=lambda *_: it.failures >= len(it.starts))
        return SimpleNamespace(set_up=set_up)

    def answer(failed, doing):
        if failed:
            raise GoneError("OutOfMemoryError")
        return WorkerInfo(1, "a", "cpu", {}), "node"

    def sleep(seconds):
        it.now += seconds

    def check_ray():
        if it.gone:
            raise RayLostError("gone")

    clock = SimpleNamespace(monotonic=lambda: it.now, sleep=sleep)
    monkeypatch.setattr(crews, "time", clock)
    monkeypatch.setattr(elastics, "time", clock)
    monkeypatch.setattr(crews, "answer", answer)
    monkeypatch.setattr(crews, "is_ready", lambda references: True)
    monkeypatch.setattr(crews, "check_ray", check_ray)
    monkeypatch.setattr(elastics, "check_ray", check_ray)
    monkeypatch.setattr(crews.ray, "put", lambda value: value)
    monkeypatch.setattr(crews.ray, "wait", lambda references, timeout, **_: sleep(timeout) or ([], references))
    monkeypatch.setattr(crews.processes, "start_worker", start_worker)
    monkeypatch.setattr(crews.processes, "end", lambda actor: None)
    monkeypatch.setattr(elastics, "room", lambda resources, in_all=False: it.room)
    monkeypatch.setattr(elastics, "can_grow", lambda: it.grows)
    monkeypatch.setattr(elastics, "draining", set)
    monkeypatch.setattr(elastics, "usable_nodes", dict)
    monkeypatch.setattr(elastics, "ask_autoscaler", lambda resources, workers: None)
    return it


def make(cluster, least=1, most=1, stop=lambda: False, sites=None, shards=9, **wanted):
    def tell(kind, **fields):
        cluster.events.append(kind)

    crew = Crew(None, RayResources(), tell)
    crew.environment = {}
    staffing = Staffing(Wanted(least, most, **wanted))
    return crew, Elastic(
        crew,
        staffing,
        RayResources(gpus=1),
        tell,
        stop,
        lambda places: [Plan(site, ()) for site in places],
        lambda: range(shards),
        sites or Sites(),
    )


def test_starts_that_fail_are_tried_again_after_growing_pauses(cluster):
    cluster.failures = len(START_PAUSES)
    crew, it = make(cluster, patience=0.5)  # room there is: patience is for room
    it.staff()
    assert len(crew.members) == 1
    pauses = [later - sooner for sooner, later in zip(cluster.starts, cluster.starts[1:], strict=False)]
    assert pauses == pytest.approx(START_PAUSES, abs=0.7)
    assert cluster.events == ["start_failed"] * len(START_PAUSES) + ["worker_started"]


def test_a_run_whose_workers_never_start_is_given_up_with_the_reason(cluster):
    cluster.failures = 10**6
    _, it = make(cluster)
    with pytest.raises(PisaError, match=r"died 7 times in a row while they were starting \(OutOfMemoryError\)"):
        it.staff()
    assert sum(START_PAUSES) <= cluster.now < sum(START_PAUSES) + 10


def test_workers_that_fail_together_count_once(cluster):
    cluster.failures = 8
    crew, it = make(cluster, least=4, most=4)
    it.staff()
    assert len(crew.members) == 4
    assert cluster.events.count("start_failed") == 8
    assert cluster.now < START_PAUSES[0] + START_PAUSES[1] + 2


def test_a_run_goes_on_with_the_workers_that_it_has_while_others_fail(cluster):
    crew, it = make(cluster, least=1, most=1)
    it.staff()
    cluster.failures = 10**6
    it.resize(2)
    for _ in range(400):
        it.look()
        cluster.now += 0.5
    assert len(crew.members) == 1
    assert 8 <= len(cluster.starts) <= 16  # seven, a minute's rest, and so on


def test_a_start_that_succeeds_forgets_the_failures(cluster):
    cluster.failures = 3
    crew, it = make(cluster)
    it.staff()
    crew.dismiss(crew.members[0])
    cluster.failures = 5
    before = cluster.now
    it.staff()
    assert cluster.now - before < START_PAUSES[0] + 2


def test_a_request_to_stop_is_heard_between_failing_starts(cluster):
    cluster.failures = 10**6
    _, it = make(cluster, stop=lambda: cluster.now > 2)
    with pytest.raises(StoppedWaitingError):
        it.staff()
    assert cluster.now < 4


@pytest.mark.parametrize(("room", "least"), [(0, 1), (1, 2), (3, 4)])
def test_what_a_ray_of_the_run_s_own_will_never_have_room_for_is_refused_at_once(cluster, room, least):
    cluster.grows, cluster.room = False, room
    _, it = make(cluster, least=least, most=least, patience=300.0)
    with pytest.raises(
        ConfigError, match=rf"of at least {least} workers of 1 CPU, 1 GPU each, and no node will join it"
    ):
        it.staff()
    assert cluster.now == 0.0
    assert cluster.starts == []


def test_places_that_a_ray_of_the_run_s_own_does_not_have_are_refused_at_once(cluster):
    cluster.grows, cluster.room = False, 0
    _, it = make(cluster, least=2, most=2, sites=Sites("site", {0: "lyon", 1: "bonn"}), shards=2)
    with pytest.raises(ConfigError, match="no node will join it"):
        it.staff()


def test_on_a_cluster_nodes_may_come_and_are_waited_for(cluster):
    cluster.room = 0
    _, it = make(cluster, patience=20.0)
    with pytest.raises(ConfigError, match=r"within 20 s: use fewer or smaller workers"):
        it.staff()
    assert cluster.now >= 20
    assert "waiting" in cluster.events


def test_ray_s_end_is_noticed_in_every_wait(cluster, monkeypatch):
    crew, it = make(cluster)
    cluster.gone = True
    monkeypatch.setattr(elastics, "is_ready", lambda references: False)
    for wait in (it.staff, crew.arrivals, crew.feel, crew.dead, lambda: it.await_start(Process(None, None, since=0.0))):
        with pytest.raises(RayLostError):
            wait()


def test_a_new_consensus_is_waited_for_but_not_for_ever_nor_against_the_user_s_will(cluster, monkeypatch):
    monkeypatch.setattr(elastics, "is_ready", lambda references: False)
    _, it = make(cluster)
    it.await_start(Process(None, None, since=0.0))
    assert cluster.now == pytest.approx(crews.START_SECONDS, abs=2)
    cluster.now = 0.0
    _, it = make(cluster, stop=lambda: True)
    with pytest.raises(StoppedWaitingError):
        it.await_start(Process(None, None, since=0.0))
    assert cluster.now == pytest.approx(elastics.LENIENT, abs=2)  # a round's end is worth so much


@pytest.mark.parametrize(("alive", "gone"), [({"a": True, "b": True}, False), ({"a": False, "b": True}, True)])
def test_a_node_of_our_own_that_the_cluster_counts_as_dead_ends_the_run(monkeypatch, alive, gone):
    nodes = [{"NodeID": key, "Alive": value} for key, value in alive.items()]
    monkeypatch.setattr(session.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(session.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "a"))
    monkeypatch.setattr(session, "draining", set)
    if gone:
        with pytest.raises(RayLostError, match="goes on from the last"):
            session.usable_nodes()
    else:
        assert list(session.usable_nodes()) == ["a", "b"]
