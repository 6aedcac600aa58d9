"""How many workers there may be: what the user wants is kept, and what there are shards and places for follows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pisa_ray.actors import RayResources, Sites, Staffing, Wanted, elastic
from pisa_ray.actors.elastic import Elastic


class Width:
    """An Elastic whose shards, cluster and processes are words."""

    def __init__(self, monkeypatch, least, most, shards, sites=None):
        self.room, self.asked, self.shards = 99, [], list(range(shards))
        monkeypatch.setattr(elastic, "room", lambda resources, in_all=False: self.room)
        monkeypatch.setattr(elastic, "draining", set)
        monkeypatch.setattr(elastic, "usable_nodes", dict)
        monkeypatch.setattr(elastic, "ask_autoscaler", lambda resources, n: self.asked.append(n))
        self.crew = SimpleNamespace(members=[], starting=[], rests_until=-1e9)
        self.crew.start, self.crew.dismiss, self.crew.arrivals = self._start, self._dismiss, self._arrivals
        self.crew.wait_for_arrivals = lambda seconds: None
        self.staffing = Staffing(Wanted(least, most, patience=0.0, look_every=0.0))
        self.it = Elastic(
            self.crew,
            self.staffing,
            RayResources(),
            lambda kind, **fields: None,
            lambda: False,
            list,
            lambda: self.shards,
            sites or Sites(),
        )

    def _start(self, sites):
        known = len(self.crew.members) + len(self.crew.starting)
        self.crew.starting += [
            SimpleNamespace(id=known + k, site=site, node="a", info=None) for k, site in enumerate(sites)
        ]

    def _dismiss(self, member):
        self.crew.starting = [m for m in self.crew.starting if m is not member]

    def _arrivals(self):
        came, self.crew.starting = self.crew.starting, []
        self.crew.members += came
        return came

    def settle(self):
        """Some looks at the cluster; how many workers there are then."""
        for _ in range(3):
            _, leaving = self.it.look()
            self.crew.members = [m for m in self.crew.members if m not in leaving]
        return len(self.crew.members)

    def have(self, shards):
        self.shards = list(range(shards))
        self.it.refit()
        return self.settle()


def test_a_run_that_gains_shards_again_regains_its_width(monkeypatch):
    run = Width(monkeypatch, 2, 3, shards=3)
    assert run.settle() == 3
    assert run.have(1) == 1
    assert (run.it.least, run.it.most) == (1, 1)
    assert run.have(2) == 2
    assert run.have(5) == 3  # as many as were wanted, and no more
    assert run.staffing.wanted == Wanted(2, 3, patience=0.0, look_every=0.0)


@pytest.mark.parametrize(("wanted", "few", "many"), [(1, 1, 1), (2, 2, 2), (4, 3, 4), (100, 3, 8)])
def test_a_size_that_is_asked_for_while_there_are_few_shards_counts_when_there_are_more(monkeypatch, wanted, few, many):
    run = Width(monkeypatch, 1, 2, shards=3)
    run.settle()
    run.it.resize(wanted)
    assert run.settle() == few
    assert run.have(8) == many


def test_a_smaller_size_lowers_the_least_too_and_for_good(monkeypatch):
    run = Width(monkeypatch, 4, 6, shards=9)
    run.it.resize(2)
    assert (run.it.least, run.it.most) == (2, 2)
    run.it.resize(5)
    assert (run.it.least, run.it.most) == (2, 5)
    assert (run.staffing.wanted.least, run.staffing.wanted.most) == (4, 6)  # settings do not change


def test_each_place_has_a_worker_whatever_is_asked_for(monkeypatch):
    run = Width(monkeypatch, 1, 3, shards=3, sites=Sites("site", {0: "bonn", 1: "lyon", 2: "lyon"}))
    run.it.resize(1)
    assert run.it.most == 2
    run.shards = [1, 2]
    assert run.it.most == 1
    run.shards = [0, 1, 2]
    assert run.it.most == 2


def test_workers_that_are_starting_and_too_many_now_are_not_waited_for(monkeypatch):
    run = Width(monkeypatch, 1, 5, shards=5)
    run.it.look()
    assert len(run.crew.starting) == 5
    run.shards = [0, 1]
    run.it.refit()
    assert len(run.crew.starting) == 2


def test_the_autoscaler_is_asked_for_as_many_as_there_are_shards_for(monkeypatch):
    run = Width(monkeypatch, 1, 5, shards=5)
    run.room = 0
    assert [run.have(5), run.have(2), run.have(4)] == [0, 0, 0]
    assert run.asked == [5, 2, 4]


def test_a_fleet_that_is_started_anew_has_the_size_that_was_asked_for_last(monkeypatch):
    run = Width(monkeypatch, 1, 2, shards=4)
    run.it.resize(4)
    anew = Elastic(run.crew, run.staffing, RayResources(), dict, lambda: False, list, lambda: run.shards)
    assert anew.most == 4
