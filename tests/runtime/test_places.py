"""Shards that may not leave their place: where their rows are read, what absence means, where workers start."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import ALONE, KILLED, MORE, PLACES, ROUNDS
from runs import METHODS, plain_net, uneven
from runs import small_job as job

from pisa_ray import Asynchronous, Clip, ConfigError, Data, FedAvg, PisaTrainer
from pisa_ray.actors import RayResources, Staffing, Wanted, elastic
from pisa_ray.actors.elastic import Elastic
from pisa_ray.actors.sites import Sites
from pisa_ray.engine.consensus import Consensus
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.engine.worker import Worker
from pisa_ray.trainer.settings import Scaling

SCRIPT = Path(__file__).with_name("places.py")
SHARDS = len(uneven().shards)


# Where workers start

LABELS = ("bonn", "lyon", "oslo")
pinned = st.dictionaries(st.integers(0, 7), st.sampled_from(LABELS), min_size=1)


@given(
    of=pinned,
    spare=st.integers(0, 5),
    workers=st.dictionaries(st.sampled_from((*LABELS, None)), st.integers(0, 2)),
    room=st.dictionaries(st.sampled_from((*LABELS, None)), st.integers(0, 3)),
)
def test_every_place_has_a_claim_to_a_worker(of, spare, workers, room):
    sites = Sites("site", of)
    groups = sites.groups(range(8))
    places = [site for site in groups if site is not None]
    workers = {site: min(n, len(groups[site])) for site, n in workers.items() if site in groups}
    most = len(places) + spare
    opened = Counter(sites.openings(range(8), most, workers, lambda site: room.get(site, 0)))
    have = Counter(workers) + opened
    assert all(n <= room.get(site, 0) for site, n in opened.items())
    assert all(have[site] <= len(groups[site]) for site in groups)
    assert opened.total() <= max(most - sum(workers.values()), 0)
    if all(n <= 1 for n in workers.values()) and (spare or None not in workers):  # nobody has taken another's claim
        away = [site for site in places if not have[site]]
        assert have.total() + len(away) <= most
        assert all(have[site] or not room.get(site) for site in places)


@pytest.mark.parametrize(
    ("of", "most", "workers", "room", "opened"),
    [
        ({1: "bonn", 2: "lyon"}, 2, {}, {None: 1, "bonn": 1, "lyon": 1}, ["bonn", "lyon"]),
        ({1: "bonn", 2: "lyon"}, 3, {}, {None: 1, "bonn": 1, "lyon": 1}, ["bonn", "lyon", None]),
        ({1: "bonn", 2: "lyon"}, 2, {"lyon": 1}, {None: 1, "bonn": 0, "lyon": 1}, []),
        ({0: "bonn", 1: "bonn", 2: "lyon"}, 4, {"lyon": 1}, {"bonn": 5, "lyon": 5}, ["bonn", "bonn"]),
    ],
)
def test_named_places_come_first(of, most, workers, room, opened):
    """Shards that may be anywhere need no worker of their own."""
    assert Sites("site", of).openings([0, 1, 2], most, workers, lambda site: room.get(site, 0)) == opened


def test_nothing_pinned_is_one_place():
    sites = Sites()
    assert not sites
    assert sites.groups([2, 0]) == {None: [2, 0]}
    assert sites.selector(None) == {}
    assert sites.is_home(0, None)


def crew_of(*sites):
    members = [SimpleNamespace(id=k, site=site, node=f"{site}-{k}", info=None) for k, site in enumerate(sites)]
    return SimpleNamespace(members=members, starting=[], dismiss=lambda member: None)


def elastic_of(crew, shards, most=2):
    sites = Sites("site", {0: "bonn", 1: "lyon", 2: "lyon"})

    def tell(kind, **fields):
        pass

    return Elastic(crew, Staffing(Wanted(1, most)), RayResources(), tell, lambda: False, list, lambda: shards, sites)


def test_a_worker_whose_place_has_no_shards_is_let_go_and_no_other():
    crew = crew_of("bonn", "lyon")
    left = elastic_of(crew, [1, 2])  # the shard of Bonn has left the problem
    left.resize(1)
    assert left.leaving() == crew.members[:1]
    both = elastic_of(crew, [0, 1, 2])
    both.resize(1)  # each place needs one
    assert both.leaving() == []


def test_a_worker_that_can_only_keep_states_is_too_few():
    crew = crew_of("bonn")
    assert elastic_of(crew, [1, 2]).is_short()
    assert elastic_of(crew, [1, 2]).leaving() == []  # the states are there
    assert not elastic_of(crew, [0, 1, 2]).is_short()


def test_a_draining_place_waits_for_its_next_worker(monkeypatch):
    monkeypatch.setattr(elastic, "usable_nodes", lambda: {"bonn-9": {"Labels": {"site": "bonn"}}})
    crew = crew_of("bonn", "lyon")
    monkeypatch.setattr(elastic, "draining", lambda: {"bonn-0"})
    it = elastic_of(crew, [0, 1, 2])
    it.note_draining()
    assert it.leaving() == crew.members[:1]
    crew.starting = [SimpleNamespace(id=9, site="bonn", node="")]
    assert it.leaving() == []


# What absence means


def started(of):
    worker = Worker(of, process_is_ours=False)
    return worker, Consensus(of, worker.model.layout, worker.model.published())


@pytest.mark.parametrize("away", [{0}, {1, 4}])
def test_a_shard_whose_state_is_kept_elsewhere_is_one_that_does_not_report(away):
    """Moved without its rows for rounds 4 to 6, and home again: as if the user had let the others report."""
    rest = [i for i in range(SHARDS) if i not in away]
    everybody = list(range(SHARDS))
    told = job(participation=[everybody] * 2 + [rest] * 3 + [everybody] * 3)
    alone, one = started(told)
    alone.host(range(SHARDS))
    pinned = job(pin_to={"site": ["bonn" if i in away else "lyon" for i in range(SHARDS)]})
    (bonn, two), (lyon, _) = started(pinned), started(pinned)
    bonn.host(sorted(away))
    lyon.host(rest)
    for round_ in range(1, 9):
        if round_ == 4:
            lyon.host(sorted(away), bonn.release(sorted(away)), rows=False)
        if round_ == 7:
            bonn.host(sorted(away), lyon.release(sorted(away)))
        absent = away if 4 <= round_ < 7 else set()
        one.add(round_, 0, alone.step(RoundSpec(round_, 10.0, True), one.publish().copy())[0])
        w = two.publish().copy()
        reports = {}
        for ticket, worker in enumerate((bonn, lyon)):
            payload, report = worker.step(RoundSpec(round_, 10.0, True), w, absent=absent)
            two.add(round_, ticket, payload)
            reports |= report.shards
        assert set(reports) == set(range(SHARDS)) - absent
        ours, theirs = two.update(RoundSpec(round_, 10.0, True)), one.update(RoundSpec(round_, 10.0, True))
        assert np.array_equal(ours[0], theirs[0])
        assert ours[1].residual == theirs[1].residual


def test_a_shard_that_has_never_reported_has_no_say():
    of = job(pin_to={"site": ["bonn"] + ["lyon"] * (SHARDS - 1)})
    worker, consensus = started(of)
    worker.host(range(1, SHARDS))
    worker.host([0], rows=False)
    for round_ in (1, 2):
        payload, _ = worker.step(RoundSpec(round_, 10.0, False), consensus.publish().copy(), absent={0}, repeat=True)
        assert [node[1] for node, _ in payload.messages] == list(range(1, SHARDS))
        consensus.add(round_, 0, payload)
        consensus.update(RoundSpec(round_, 10.0, False))
    assert np.isfinite(consensus.publish()).all()


def test_what_stands_is_told_where_the_state_is_older():
    """A place dies after its last safe state: the consensus' row goes with the state, and makes up a new consensus."""
    of = job(pin_to={"site": ["bonn"] + ["lyon"] * (SHARDS - 1)})
    (bonn, consensus), (lyon, other) = started(of), started(of)
    bonn.host([0])
    lyon.host(range(1, SHARDS))
    for round_ in (1, 2):
        w = consensus.publish().copy()
        for ticket, worker in enumerate((bonn, lyon)):
            consensus.add(round_, ticket, worker.step(RoundSpec(round_, 10.0, False), w)[0])
        consensus.update(RoundSpec(round_, 10.0, False))
    lyon.host([0], rows=False)  # no state was safe yet: the initial one
    assert [node[1] for node, _ in lyon.repeat([0, 1], False).messages] == [1]
    lyon.hear(consensus.said([0, 7]))
    other.restore(consensus.publish().copy(), 3)
    other.add(3, 0, lyon.repeat(range(SHARDS), False))
    ours, theirs = consensus.update(RoundSpec(3, 10.0, False)), other.update(RoundSpec(3, 10.0, False))
    assert np.array_equal(ours[0], theirs[0])


def test_the_limit_of_clip_is_over_those_that_have_been_heard():
    of = job(pin_to={"site": ["bonn"] * (SHARDS - 2) + ["lyon"] * 2}, robust=Clip())
    lyon, consensus = started(of)
    lyon.host(range(SHARDS - 2), rows=False)
    lyon.host(range(SHARDS - 2, SHARDS))
    consensus.add(
        1, 0, lyon.step(RoundSpec(1, 10.0, False), consensus.publish().copy(), absent=set(range(SHARDS - 2)))[0]
    )
    published, _ = consensus.update(RoundSpec(1, 10.0, False))
    assert published[-1] > 0


def test_rows_of_a_shard_that_is_kept_are_not_to_be_had():
    worker, consensus = started(job(pin_to={"site": ["bonn"] * SHARDS}))
    worker.host([0], rows=False)
    with pytest.raises(RuntimeError, match="rows are elsewhere"):
        worker.evaluate_shards(consensus.publish(), [0], held_out=True)
    worker.prefetch([0])  # leaves it out
    worker.host([0])
    assert worker.evaluate_shards(consensus.publish(), [0], held_out=True)[0]["rows"] > 0


# Refusals

ONE = {"site": ["bonn"] + [None] * (SHARDS - 1)}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pin_to": {}}, "names 0 node labels"),
        ({"pin_to": {"site": ["bonn"] * SHARDS, "zone": ["a"] * SHARDS}}, "names 2 node labels"),
        ({"pin_to": {"site": ["bonn", "lyon"]}}, f"pin_to.site has 2 values, but there are {SHARDS} shards"),
        ({"pin_to": {"site": "bonn"}}, "pin_to.site has one value"),
        ({"pin_to": {"site": [None] * SHARDS}}, "no value for any shard"),
        ({"pin_to": {"site": ["!bonn"] * SHARDS}}, r"pin_to.site\[0\] is '!bonn'"),
        ({"pin_to": {"site": [1] * SHARDS}}, r"pin_to.site\[0\] is 1"),
        ({"pin_to": ONE, "algorithm": FedAvg(lr=0.1)}, "FedAvg forgets who does not report"),
        ({"pin_to": ONE, "scaling_config": 0}, "at most 0 workers, but pin_to names 1 places"),
        ({"pin_to": {"site": ["bonn", "lyon"] + [None] * (SHARDS - 2)}, "scaling_config": 1}, "names 2 places"),
        (
            {"pin_to": ONE, "scaling_config": Scaling(1, 1, labels={"site": "bonn"})},
            "site is in pin_to and in the label selector of scaling_config",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, changes, why):
    with pytest.raises(ConfigError, match=why):
        PisaTrainer(**arguments(tmp_path, **changes))


def test_a_log_is_not_repeated_without_rows(tmp_path):
    log = tmp_path / "arrivals.jsonl"
    log.write_text(json.dumps({"round": 1, "steps": [[i, 1] for i in range(SHARDS)]}) + "\n")
    more = {"asynchronous": Asynchronous(replay=log), "rounds": 1, "pin_to": ONE}
    with pytest.raises(ConfigError, match="replay needs all of them"):
        PisaTrainer(**arguments(tmp_path, **more))


def arguments(path, **changes):
    return {
        "model": plain_net,
        "data": Data(train="digits"),
        "partition": uneven(),
        "algorithm": METHODS["sisa_d"],
        "rounds": 3,
        "scaling_config": 1,
        "run_config": path / "run",
        "progress": False,
        **changes,
    }


@pytest.mark.ray
def test_places_that_nobody_has_are_named(tmp_path, ray_session):
    few = Scaling(1, 1, patience=0.5)
    with pytest.raises(ConfigError, match=r"room for 0 of at least 1 workers .* labelled site: bonn"):
        PisaTrainer(**arguments(tmp_path, pin_to={"site": ["bonn"] * SHARDS}, scaling_config=few)).fit()


# On nodes


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["synchronous", "participation", "asynchronous"])
def test_a_place_goes_away_and_comes_back(tmp_path, mode):
    command = [sys.executable, str(SCRIPT), str(tmp_path / "run"), mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    bonn = [i for i, place in enumerate(PLACES) if place == "bonn"]
    for site, shard in found["read"]:  # the driver, which has the data set, looks at some items
        assert PLACES[shard] in (site, None) or site == "driver"
    assert {(site, shard) for site, shard in found["read"] if site == "bonn"} == {("bonn", i) for i in bonn}
    away = [(round_, i) for kind, round_, shards in found["told"] if kind == "shards_away" for i in shards]
    back = [(round_, i) for kind, round_, shards in found["told"] if kind == "shards_back" for i in shards]
    assert sorted(i for _, i in away) == sorted(2 * bonn)  # and again where the run goes on without Bonn
    assert sorted(i for _, i in back) == bonn
    left, came = away[0][0], back[0][0]
    assert left >= KILLED - 1
    assert came >= KILLED + ALONE - 1
    reporting = dict(found["rows"])
    assert len(reporting) == ROUNDS + MORE
    alone = [reporting[r] for r in range(left + 2, came + 1)] + [reporting[r] for r in range(ROUNDS + 1, ROUNDS + MORE)]
    together = [reporting[r] for r in range(came + 5, ROUNDS)]
    most = {"synchronous": (4, 6), "participation": (2, 3), "asynchronous": (4, 6)}[mode]
    if mode == "asynchronous":
        assert max(alone) <= most[0] < max(together)
    else:
        assert set(alone) == {most[0]}
        assert set(together) == {most[1]}
    assert min(found["accuracy"]) > 0.9
