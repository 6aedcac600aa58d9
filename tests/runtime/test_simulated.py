"""Faults in a simulated Ray, many and in any order: the same bits; pinned shards keep their say, and no row leaves."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import small_job as job
from runs import uneven
from simulated import Simulation, get

from pisa_ray import Asynchronous
from pisa_ray.actors import deaths
from pisa_ray.actors.sites import Sites
from pisa_ray.engine.fleet import LocalFleet
from pisa_ray.engine.numerics import borrowed_process
from pisa_ray.engine.reports import RoundSpec

SHARDS = len(uneven().shards)
PLACES = [("bonn", "lyon", None)[i % 3] for i in range(SHARDS)]
SITES = Sites("site", {i: place for i, place in enumerate(PLACES) if place})
BONN = [i for i, place in enumerate(PLACES) if place == "bonn"]
MODES = {
    "synchronous": {},
    "participation": {"participation": 0.5},
    "asynchronous": {"asynchronous": Asynchronous(quorum=0.5, staleness=5)},
}


@pytest.fixture(scope="module")
def jobs():
    pinned = {name: job(pin_to={"site": PLACES}, **changes) for name, changes in MODES.items()}
    return pinned | {"lists": job(pin_to={"site": PLACES}, participation=[BONN, [1, 2]])}


@pytest.fixture(scope="module")
def free():
    return {name: job(**changes) for name, changes in MODES.items()}


@pytest.fixture(scope="module", autouse=True)
def _luck_may_kill_one_process_often_in_a_round():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(deaths, "DEATHS_IN_A_ROUND", 100)
        yield


# Shards that may be anywhere


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_bits_are_those_of_a_run_without_faults(free, mode, seed):
    """Of the same messages in the same rounds, that is: an asynchronous run is repeated from its log."""
    luck, rounds = random.Random(seed), 20
    with pytest.MonkeyPatch.context() as monkeypatch:
        run = Simulation(free[mode], Sites(), [None, None, None], monkeypatch, luck)
        for round_ in range(1, rounds + 1):
            run.kill_some(luck, 0.05)
            if len(run.members) < 4 and luck.random() < 0.3:
                run.fleet.elastic.arrived = [run.member(None)]
            if len(live := [m for m in run.members if not m.actor.dead]) > 2 and luck.random() < 0.1:
                run.fleet.elastic.leaving = [live[0]]
            run.fleet.tend()
            run.kill_some(luck, 0.08)
            run.fleet.begin(RoundSpec(round_, 10.0, round_ % 3 == 0), settle=round_ == rounds)
            run.kill_some(luck, 0.1)
            if run.fleet.state.suspect and luck.random() < 0.7:
                run.fleet.recover()
                run.kill_some(luck, 0.1)
            run.fleet.end()
        w = np.array(run.fleet.published())
    replay = dict(run.log) if mode == "asynchronous" else None
    with borrowed_process(1):
        alone = LocalFleet(free[mode], replay=replay)
        for round_ in range(1, rounds + 1):
            alone.begin(RoundSpec(round_, 10.0, round_ % 3 == 0))
            alone.end()
        assert np.array_equal(alone.consensus.publish(), w)


@pytest.mark.parametrize("mode", ["synchronous", "participation"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_happened_before_going_back_has_not_happened(free, mode, seed):
    """Whoever dies meanwhile."""
    luck, rounds = random.Random(seed), 14

    def fault(share):
        run.kill_some(luck, share)
        if len(run.members) < 4 and luck.random() < 0.3:
            run.fleet.elastic.arrived = [run.member(None)]

    def step(round_, sigma):
        fault(0.05)
        run.fleet.tend()
        fault(0.05)
        run.fleet.begin(RoundSpec(round_, sigma, round_ % 3 == 0))
        fault(0.05)
        run.fleet.end()

    with pytest.MonkeyPatch.context() as monkeypatch:
        run = Simulation(free[mode], Sites(), [None, None, None], monkeypatch, luck)
        for round_ in range(rounds + 1):
            if luck.random() < 0.4:
                run.fleet.tend()
                fork = run.fleet.fork(round_)
                for _ in range(luck.randint(1, 3)):
                    for later in range(luck.randint(0, 3)):
                        step(round_ + later + 1, 40.0)
                    fault(0.05)
                    run.fleet.back(fork)
            if round_ < rounds:
                step(round_ + 1, 10.0)
        run.fleet.tend()
        w = np.array(run.fleet.published())
    with borrowed_process(1):
        alone = LocalFleet(free[mode])
        for round_ in range(1, rounds + 1):
            alone.begin(RoundSpec(round_, 10.0, round_ % 3 == 0))
            alone.end()
        assert np.array_equal(alone.consensus.publish(), w)


@pytest.mark.parametrize("mode", ["synchronous", "participation"])
def test_a_delivery_of_a_trial_does_not_count_after_it(free, mode, monkeypatch):
    """A frozen worker may send in the end, to a round whose number comes again."""
    run = Simulation(free[mode], Sites(), [None, None], monkeypatch)
    play(run, 1)
    fork = run.fleet.fork(1)
    run.fleet.begin(RoundSpec(2, 40.0, False))
    late = [(ticket, get(delivery.payload)) for ticket, delivery in run.fleet.state.round.deliveries.items()]
    run.fleet.end()
    run.fleet.back(fork)
    run.fleet.tend()
    assert not any(run.consensus.add(2, ticket, payload) for ticket, payload in late)
    play(run, 2)
    alone = LocalFleet(free[mode])
    for round_ in (1, 2):
        alone.begin(RoundSpec(round_, 10.0, False))
        alone.end()
    assert np.array_equal(alone.consensus.publish(), run.consensus.publish())


def play(run, round_, diagnose=False):
    run.fleet.tend()
    run.fleet.begin(RoundSpec(round_, 10.0, diagnose))
    return run.fleet.end()


# Shards that may not leave their place


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_dies_comes_or_leaves(jobs, mode, seed):
    with pytest.MonkeyPatch.context() as monkeypatch:
        luck = random.Random(seed)
        run = Simulation(jobs[mode], SITES, ["bonn", "lyon", None], monkeypatch, luck)
        fleet, heard = run.fleet, set()
        for round_ in range(1, 21):
            run.kill_some(luck, 0.05)
            if len(run.members) < 4 and luck.random() < 0.3:
                fleet.elastic.arrived = [run.member(luck.choice(["bonn", "lyon", None]))]
            if len(live := [m for m in run.members if not m.actor.dead]) > 2 and luck.random() < 0.1:
                fleet.elastic.leaving = [live[0]]
            fleet.tend()
            run.kill_some(luck, 0.08)
            fleet.begin(RoundSpec(round_, 10.0, round_ % 3 == 0))
            run.kill_some(luck, 0.1)
            if fleet.state.suspect and luck.random() < 0.7:
                fleet.recover()
                run.kill_some(luck, 0.1)
            held_out = fleet.evaluate_shards(held_out=True)
            report = fleet.end()
            held_out()
            if fleet.state.lacks_standing:  # the consensus has died after the round, and is told all in the next
                continue
            known = {i for i, shard in run.hosted().items() if shard.state.said.any()}
            assert heard & known <= set(run.consensus.heard())  # it keeps its say, but if all who knew it died
            heard = set(run.consensus.heard())
            assert heard >= set(report.shards)
            assert np.isfinite(run.consensus.publish()).all()
            for i, shard in run.hosted().items():
                site = next(m.site for m in run.members if i in m.shards)
                assert (shard.rows is not None) == SITES.is_home(i, site)  # its rows are where they may be, and read
                if shard.state.reports and not fleet.is_settled():
                    continue
                if i in heard and shard.state.version == round_:
                    assert np.array_equal(run.consensus.said([i])[i], shard.state.said.numpy())
        assert fleet.assignment.lost | set().union(*(m.shards for m in run.members)) == set(range(SHARDS))


def test_the_last_to_be_alive_does_not_leave(free, monkeypatch):
    """One is about to leave, and the one who was to stay dies."""
    run = Simulation(free["synchronous"], Sites(), [None, None], monkeypatch)
    play(run, 1)
    leaving, staying = run.members
    run.fleet.elastic.leaving = [leaving]
    run.kill(staying)
    play(run, 2)
    assert run.members == [leaving]
    assert sorted(run.hosted()) == list(range(SHARDS))


@pytest.fixture
def three(jobs, monkeypatch):
    return Simulation(jobs["synchronous"], SITES, ["bonn", "lyon", None], monkeypatch)


def bonn(run):
    return next(m for m in run.members if m.site == "bonn")


def test_a_place_and_the_consensus_die_in_one_round(three):
    for round_ in range(1, 6):
        play(three, round_)
    said = {i: three.hosted()[i].state.said.numpy().copy() for i in BONN}
    three.fleet.tend()
    three.kill(bonn(three))
    three.fleet.begin(RoundSpec(6, 10.0, False))
    three.kill(three.fleet.state.consensus)
    assert sorted(three.fleet.end().shards) == [i for i in range(SHARDS) if i not in BONN]
    assert three.consensus.heard() == list(range(SHARDS))
    assert set(three.consensus.said(BONN)) == set(said)


def test_what_has_been_said_since_the_last_safe_state_stands(three):
    for round_ in range(1, 8):
        play(three, round_)
    said = three.consensus.said(BONN)
    kept = three.fleet.snapshots.round
    assert 0 < kept < 7
    three.kill(bonn(three))
    play(three, 8)
    three.kill(three.fleet.state.consensus)
    play(three, 9)
    for i in BONN:
        assert np.array_equal(three.consensus.said([i])[i], said[i])
        assert three.hosted()[i].state.version == kept
        assert three.hosted()[i].rows is None
    (away,) = [fields for kind, fields in three.events if kind == "shards_away"]
    assert (away["shards"], away["state"]) == (BONN, kept)
    three.fleet.elastic.arrived = [three.member("bonn")]
    assert sorted(play(three, 10).shards) == list(range(SHARDS))
    assert [fields["shards"] for kind, fields in three.events if kind == "shards_back"] == [BONN]


def test_a_drained_place_hands_over_all(three):
    for round_ in range(1, 8):
        play(three, round_)
    three.fleet.elastic.leaving = [bonn(three)]
    play(three, 8)
    assert {three.hosted()[i].state.version for i in BONN} == {7}


def test_a_round_in_which_all_who_were_to_report_went_away(jobs, monkeypatch):
    run = Simulation(jobs["lists"], SITES, ["bonn", "lyon", None], monkeypatch)
    for round_ in range(1, 4):
        play(run, round_)
    run.fleet.tend()
    w = run.consensus.publish().copy()
    run.kill(bonn(run))
    run.fleet.begin(RoundSpec(4, 10.0, True))
    assert run.fleet.end().shards == {}
    assert np.allclose(run.consensus.publish(), w, atol=1e-2)
    assert sorted(play(run, 5).shards) == [1, 2]
    assert sorted(play(run, 6).shards) == [i for i in range(SHARDS) if i not in BONN]  # the list names nobody else
