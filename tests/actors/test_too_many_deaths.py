"""Deaths that a run puts up with, and those that it does not."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from runs import small_job
from simulated import Simulation

from pisa_ray.actors import Sites, Staffing, Wanted
from pisa_ray.actors.deaths import Deaths
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.errors import PisaError, WorkerDiedError


@pytest.fixture(scope="module")
def job():
    return small_job()


def play(run, round_, *dying):
    for holder in dying:
        run.kill(holder)
    run.fleet.tend()
    run.fleet.begin(RoundSpec(round_, 10.0, False))
    run.fleet.end()


@pytest.mark.parametrize("most", [0, 1, 2])
def test_no_more_deaths_than_max_failures(job, monkeypatch, most):
    run = Simulation(job, Sites(), [None] * 4, monkeypatch, wanted=Wanted(1, 9, max_failures=most))
    for round_ in range(1, most + 1):
        play(run, round_, run.members[0])
    with pytest.raises(WorkerDiedError, match=rf"{most + 1} processes died, more than max_failures {most}: "):
        play(run, most + 1, run.members[0])


def test_any_number_of_deaths_where_nothing_is_said(job, monkeypatch):
    run = Simulation(job, Sites(), [None] * 8, monkeypatch)
    for round_ in range(1, 7):
        play(run, round_, run.members[0])
    assert len(run.members) == 2


def test_a_consensus_that_dies_again_and_again_in_one_round_ends_the_run(job, monkeypatch):
    run = Simulation(job, Sites(), [None], monkeypatch)
    for round_ in range(1, 7):  # once in a round, it may
        play(run, round_, run.fleet.state.consensus)
    run.fleet.tend()
    run.fleet.begin(RoundSpec(7, 10.0, False))
    for _ in range(2):
        run.kill(run.fleet.state.consensus)
        run.fleet.recover()
    run.kill(run.fleet.state.consensus)
    with pytest.raises(PisaError, match="the consensus process died 3 times in round 7: look for too little memory"):
        run.fleet.recover()


@pytest.mark.parametrize("accident", [False, True])
def test_a_shard_whose_workers_die_again_and_again_in_one_round_ends_the_run(accident):
    deaths = Deaths(Staffing(Wanted(1, 9)))
    for round_ in range(1, 5):  # twice in a round, they may
        deaths.end_round()
        for shards in ([3, 4], [3]):
            deaths.add_worker(shards, accident=accident)
            deaths.check(round_)
    deaths.add_worker([2, 3], accident=accident)
    with nullcontext() if accident else pytest.raises(PisaError, match="workers of shard 3 died 3 times in round 4: "):
        deaths.check(4)
