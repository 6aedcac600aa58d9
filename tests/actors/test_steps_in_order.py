"""Asynchronous rounds: each shard steps at newer and newer w's, never twice at one, and no message is too old."""

from __future__ import annotations

import random

import pytest
from runs import small_job
from simulated import Simulation

from pisa_ray import Asynchronous
from pisa_ray.actors import Sites
from pisa_ray.engine.reports import RoundSpec

TAU = 3


@pytest.fixture(scope="module")
def job():
    return small_job(asynchronous=Asynchronous(quorum=0.4, staleness=TAU))


@pytest.mark.parametrize("seed", range(5))
def test_no_shard_steps_twice_at_the_same_w(job, monkeypatch, seed):
    luck = random.Random(seed)
    run = Simulation(job, Sites(), [None, None, None], monkeypatch, luck)
    for round_ in range(1, 16):
        run.fleet.tend()
        run.fleet.begin(RoundSpec(round_, 10.0, False), settle=round_ % 7 == 0)
        run.fleet.end()
    heard = dict.fromkeys(job.present, 0)
    for round_, steps in run.log:
        for shard, version in steps:
            assert heard[shard] < version <= round_
            heard[shard] = version
        assert min(heard.values()) >= round_ - TAU
    assert len(run.log) == 15
