"""k0 chosen while a run goes on: what trials leave behind is nothing, and the choice is the same for everybody."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from chaos import Chaos, Fault, shaken
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.search import Searcher
from runs import METHODS, Rich, events, run, small_job, states, trajectory

from pisa_ray import SISAD, Asynchronous, ConfigError, Data, Geometric, OnlineK0, SyncOptimizer, Trapezoid
from pisa_ray.algorithm import Auto
from pisa_ray.engine.consensus import Consensus
from pisa_ray.engine.evaluation import spaced
from pisa_ray.engine.fleet import LocalFleet
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.trainer.online import Neighbours, Trials

DATA = Data(train="digits", test="digits:test", validation=0.1)
#: Two rungs in 24 rounds, after rounds 3 and 11.
ONLINE = OnlineK0(k0=1, gamma=0.8, warmup=0.0, share=1.0, longer=0.0, shorter=0.0, most=1e9)


#: A hint that is taken as it is.
HINTED = SISAD(sigma=Auto(hint=20.0), rho=580.0)


def online(path, schedule=ONLINE, **changes):
    return run(path, **{"data": DATA, "sigma_schedule": schedule, "rounds": 24, "algorithm": HINTED, **changes})


# The plan


@settings(deadline=None)
@given(
    rounds=st.integers(1, 5000),
    share=st.floats(0.001, 1),
    length=st.integers(2, 20),
    k0=st.integers(1, 1000),
)
def test_rungs_lie_within_the_run_and_trials_cost_no_more_than_their_share(rounds, share, length, k0):
    schedule = OnlineK0(rounds=rounds, share=share, length=length, k0=k0)
    assert schedule.trials * (length + 1 / 3) <= share * rounds * (1 + 1e-9)
    assert list(schedule.rungs) == sorted(set(schedule.rungs))
    assert all(0 < rung < rounds for rung in schedule.rungs)
    for rung in schedule.rungs[:5]:
        ends = rung + schedule.until(rung)
        assert ends in {*schedule.rungs, rounds}
        sigma, memory = 1.0, schedule.remembered(1, rung, 3, 1, {})
        for round_ in range(rung + 1, ends + 1):
            sigma = schedule.grow(sigma, round_, memory)
        assert sigma == pytest.approx(min(schedule.pace(1, rung) ** length, 1e30), rel=1e-6)


def test_sigma_grows_by_the_period_that_was_chosen_counted_from_the_rung():
    schedule = OnlineK0(k0=2, gamma=0.5, warmup=0.0, rounds=100)
    assert [schedule.grow(1.0, r, schedule.remembered(2, 5, 4, 10, {})) for r in (6, 7)] == [2, 1]  # as it was
    memory = schedule.remembered(3, 5, trials=4, samples=10, memory={})
    assert [schedule.grow(1.0, r, {}) for r in (1, 2, 3, 4)] == [1, 2, 1, 2]
    assert [schedule.grow(1.0, r, memory) for r in (6, 7, 8, 9, 10, 11)] == [1, 1, 2, 1, 1, 2]
    later = schedule.remembered(9, 20, trials=3, samples=5, memory=memory)
    assert later == {"k0": 9, "begun": 20, "rung": 20, "trials": 7, "samples": 15}
    assert schedule.remembered(9, 30, 3, 5, later) == {**later, "rung": 30, "trials": 10, "samples": 20}
    assert schedule.grow(5.0, 101, {"k0": 1}) == 5.0  # after the planned rounds


@given(rounds=st.integers(40, 2000), greed=st.integers(3, 50))
@settings(deadline=None)
def test_every_rung_has_its_three_trials(rounds, greed):
    schedule, memory = OnlineK0(rounds=rounds), {}
    for rung in schedule.rungs:
        assert schedule.chooses(rung, memory)
        left = schedule.left(rung, memory)
        memory = schedule.remembered(5, rung, min(left, greed), 1, memory)
        assert not schedule.chooses(rung, memory)
    assert schedule.spent(memory) <= schedule.trials


def test_the_warm_up_is_the_trapezoids():
    schedule, planned = OnlineK0(warmup=0.4, k0=1000, rounds=100), Trapezoid(warmup=0.4, cooldown=0.0, rounds=100)
    ours = theirs = 2.0
    for round_ in range(1, 101):
        ours, theirs = schedule.grow(ours, round_, {}), planned.grow(theirs, round_)
        assert ours == pytest.approx(theirs)


def test_early_a_shorter_period_must_be_better_by_more():
    schedule = OnlineK0(rounds=100)
    assert schedule.needed(30, 10, 0) == schedule.needed(30, 10, 99) == 0.01
    assert schedule.needed(3, 10, 0) == 0.1
    assert schedule.needed(3, 10, 90) == pytest.approx(0.01)


def test_a_period_that_would_freeze_the_run_is_not_tried():
    schedule = OnlineK0(rounds=500, gamma=0.95, most=100)
    assert schedule.shortest(0) == 6  # 0.95^(-500 / 6) is 72, 0.95^(-500 / 5) is 169
    assert schedule.shortest(480) == 1
    searcher = Neighbours(schedule, 0, 1, most=9)
    for number, (k0, loss) in enumerate([(6, 1.0), (18, 2.0)]):
        assert searcher.suggest(str(number)) == {"k0": k0}
        searcher.on_trial_complete(str(number), {"loss": loss})
    assert searcher.suggest("2") == Searcher.FINISHED
    assert searcher.best == 6


@pytest.mark.parametrize(
    ("losses", "tried", "best"),
    [
        ({10: 1.0, 30: 1.0, 3: 1.0}, [10, 30, 3], 10),
        ({10: 1.0, 30: 0.9, 90: 0.895}, [10, 30, 90], 30),
        ({10: 1.0, 30: 0.9, 90: 0.8, 270: 0.7}, [10, 30, 90, 270], 270),
        ({10: 1.0, 30: 1.1, 3: 0.9, 1: 0.8}, [10, 30, 3, 1], 1),
        ({10: 1.0, 30: 1.1, 3: 0.985}, [10, 30, 3], 10),
        ({10: math.nan, 30: math.inf, 3: 5.0, 1: 6.0}, [10, 30, 3, 1], 3),
        ({10: -1.0, 30: -1.005, 3: -1.03, 1: -1.0}, [10, 30, 3, 1], 3),
        ({10: math.inf, 30: math.inf, 3: math.inf}, [10, 30, 3], 10),
    ],
)
def test_neighbours_are_asked_for_while_they_are_better(losses, tried, best):
    searcher = Neighbours(OnlineK0(rounds=500, most=1e9), 400, 10, most=4)
    asked = []
    while (config := searcher.suggest(f"trial {len(asked)}")) != Searcher.FINISHED:
        asked.append(config["k0"])
        searcher.on_trial_complete(f"trial {len(asked) - 1}", {"loss": losses[config["k0"]]})
    assert asked == tried
    assert searcher.best == best


def test_a_trial_that_failed_is_no_choice():
    searcher = Neighbours(OnlineK0(rounds=500), 400, 10, most=3)
    for number, loss in enumerate([1.0, None, 2.0]):
        searcher.suggest(str(number))
        searcher.on_trial_complete(str(number), loss and {"loss": loss}, error=loss is None)
    assert searcher.best == 10
    assert searcher.suggest("3") == Searcher.FINISHED


# What trials leave behind


def test_a_consensus_that_goes_back_forgets_what_it_was_told():
    job = small_job(participation=0.5)
    fleet = LocalFleet(job)
    fleet.begin(RoundSpec(1, 10.0, False))
    fleet.end()
    consensus: Consensus = fleet.consensus
    assert consensus.heard()
    consensus.restore(consensus.publish().copy(), 2)
    assert not consensus.heard()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_fleet_is_where_it_was(method, share):
    job = small_job(algorithm=METHODS[method], participation=share)
    sigma, vectors = job.method.sigma, []
    for disturbed in (False, True):
        fleet = LocalFleet(job)
        for round_ in range(1, 6):
            if disturbed and round_ in (1, 4):
                schedule = OnlineK0(rounds=100, length=2)
                trials = Trials(fleet, job, schedule, round_ - 1, 2 * sigma)
                assert trials.choose(Neighbours(schedule, round_ - 1, 5, most=3), lambda: False)
                assert trials.samples > 0
            fleet.begin(RoundSpec(round_, sigma, False))
            fleet.end()
        vectors.append(fleet.published().copy())
    assert np.array_equal(*vectors)


@pytest.mark.parametrize("k0", [1, 5])
def test_a_run_that_keeps_its_period_has_the_bits_of_one_without_trials(tmp_path, k0):
    keeps = replace(ONLINE, k0=k0, longer=0.99, shorter=0.999)
    chosen = online(tmp_path / "chosen", keeps)
    plain = online(tmp_path / "plain", Geometric(0.8, k0))
    assert [event["k0"] for event in events(chosen.path, "k0_chosen")] == [k0, k0]
    assert chosen.weights_sha256 == plain.weights_sha256
    assert states(chosen) == states(plain)
    assert [row["train_loss"] for row in chosen.history] == [row["train_loss"] for row in plain.history]


def test_losses_of_other_shards_are_not_compared(monkeypatch):
    job = small_job()
    fleet, schedule = LocalFleet(job), OnlineK0(rounds=100)
    evaluate, asked = LocalFleet.evaluate_shards, []

    def without_one(self, **options):
        asked.append(1)
        sums = evaluate(self, **options)()
        return lambda: dict(list(sums.items())[len(asked) == 2 :])

    for alike in (True, False):
        trials = Trials(fleet, job, schedule, 0, 60.0)
        assert trials.choose(Neighbours(schedule, 0, 10, most=3), lambda: False)
        assert trials.alike == alike
        monkeypatch.setattr(LocalFleet, "evaluate_shards", without_one)


def test_trials_are_judged_on_rows_from_all_over_and_on_no_more_than_a_round_goes_through(monkeypatch):
    assert list(spaced(10, 4)) == [0, 2, 5, 7]
    assert list(spaced(3, 4)) == list(spaced(3, None)) == [0, 1, 2]
    seen = []
    separate = small_job(data=Data(train="digits", validation="digits:test"), batch_size=4)
    for job in (small_job(batch_size=4), separate, small_job(batch_size=4, participation=0.3)):
        trials = Trials(LocalFleet(job), job, OnlineK0(rounds=100), 0, 60.0)
        held_out = Trials._held_out

        def counted(self, w, rows, held_out=held_out):
            loss, shards = held_out(self, w, rows)
            if self._job.validation is not None:
                sums = self._fleet.evaluate("validation", at=w, rows=rows)()
            else:
                sums = self._fleet.evaluate_shards(held_out=True, at=w, rows=max(1, rows // len(shards)))()
            seen.append((rows, sum(some["rows"] for some in sums.values())))
            return loss, shards

        monkeypatch.setattr(Trials, "_held_out", counted)
        trials.choose(Neighbours(OnlineK0(rounds=100), 0, 10, most=3), lambda: False)
        monkeypatch.setattr(Trials, "_held_out", held_out)
    assert len(seen) == 9
    assert all(0 < judged <= max(rows, 7) for rows, judged in seen)  # one of each of the seven shards, at the least
    assert {rows for rows, _ in seen[:6]} == {28}


# Everybody's choice


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    result = online(tmp_path_factory.mktemp("straight") / "run", model=Rich)
    assert max(event["k0"] for event in events(result.path, "k0_chosen")) > 1  # something was chosen
    return result


def test_what_was_chosen_is_told(straight):
    told = events(straight.path, "k0_chosen")
    assert [event["round"] for event in told] == [3, 11]
    assert [event["before"] for event in told] == [1, told[0]["k0"]]
    assert all(min(e["losses"].values()) == e["losses"][str(e["k0"])] for e in told)
    by_round = {row["round"]: row for row in straight.history}
    assert by_round[3]["k0"] == 1
    assert by_round[6]["k0"] == told[0]["k0"]
    assert by_round[24]["k0"] == told[1]["k0"]
    trials = straight.metrics["trial_gradients"]
    assert 0 < trials <= straight.metrics["sample_gradients"] - trials  # the share is 1
    plain = run(straight.path.parent / "plain", model=Rich, data=DATA, rounds=24, algorithm=HINTED)
    assert straight.metrics["sample_gradients"] - trials == plain.metrics["sample_gradients"]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_chooses_the_same(tmp_path, straight, workers):
    result = online(tmp_path / "run", model=Rich, workers=workers)
    assert trajectory(result) == trajectory(straight)
    assert states(result) == states(straight)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    "fault", [Fault(4, "kill"), Fault(5, "consensus kill"), Fault(12, "kill two"), Fault(6, "late")]
)
def test_who_dies_in_a_trial_changes_nothing(tmp_path, straight, fault):
    """The rounds after a rung are played several times; the fault is in the first of them, a trial's."""
    with shaken(Chaos([fault], tmp_path / "faults.jsonl")) as chaos:
        result = online(tmp_path / "run", model=Rich, workers=2)
    assert len(chaos.happened()) == 1
    assert trajectory(result) == trajectory(straight)
    assert states(result) == states(straight)


@pytest.mark.parametrize("rounds", [3, 5, 11])
def test_a_resumed_run_chooses_the_same(tmp_path, straight, rounds):
    """Also from a checkpoint right before the choice."""
    planned = replace(ONLINE, rounds=24)
    online(tmp_path / "run", planned, model=Rich, rounds=rounds)
    result = online(tmp_path / "run", planned, model=Rich, resume=True)
    assert states(result) == states(straight)
    assert [row["k0"] for row in result.history if row["round"] % 3 == 0] == [row["k0"] for row in straight.history]


def test_a_run_that_is_stopped_in_a_trial_has_not_chosen(tmp_path, straight, monkeypatch):
    from pisa_ray.trainer.interrupt import StopRequests

    asked = []
    loss = Trials._loss

    def counted(self, k0):
        asked.append(k0)
        return loss(self, k0)

    monkeypatch.setattr(Trials, "_loss", counted)
    monkeypatch.setattr(StopRequests, "__call__", lambda self: len(asked) == 2)
    stopped = online(tmp_path / "run", model=Rich)
    assert stopped.status == "interrupted"
    assert stopped.metrics["rounds"] == 3
    assert not events(tmp_path / "run", "k0_chosen")
    monkeypatch.undo()
    assert states(online(tmp_path / "run", model=Rich, resume=True)) == states(straight)


def test_a_sigma_that_is_given_is_a_hint(tmp_path, straight):
    """No trial of a few rounds can tell that it is wrong, so the automatic start looks at it."""
    same = online(tmp_path / "same", model=Rich, algorithm=SISAD(sigma=20.0, rho=580.0))
    assert states(same) == states(straight)
    [sound] = events(straight.path, "started")
    for factor in (0.01, 100.0):
        result = online(tmp_path / str(factor), model=Rich, algorithm=SISAD(sigma=20.0 * factor))
        hinted = online(tmp_path / f"hint {factor}", model=Rich, algorithm=SISAD(sigma=Auto(hint=20.0 * factor)))
        assert states(result) == states(hinted)
        [told] = events(result.path, "started")
        assert 20 * factor != told["sigma"]
        assert f"(hint {20 * factor:g})" in told["numbers"]
    assert "hint" not in sound["numbers"]
    given = run(tmp_path / "given", algorithm=METHODS["sisa_d"], rounds=1)
    assert not events(given.path, "started")


def test_learning_rates_are_chosen_too(tmp_path):
    result = online(tmp_path / "run", algorithm=METHODS["adam"])
    assert isinstance(METHODS["adam"], SyncOptimizer)
    assert len(events(result.path, "k0_chosen")) == 2


# What cannot be


def test_without_held_out_rows_there_is_no_choice(tmp_path):
    with pytest.raises(ConfigError, match=r"set data\.validation"):
        online(tmp_path / "run", data=Data(train="digits", test="digits:test"))


def test_a_run_too_short_for_a_choice_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"0\.1 of them pays for 1 of length 3"):
        online(tmp_path / "run", OnlineK0(), rounds=40)


def test_a_run_that_does_not_wait_cannot_go_back(tmp_path):
    with pytest.raises(ConfigError, match="leave asynchronous out"):
        online(tmp_path / "run", asynchronous=Asynchronous(quorum=0.5, staleness=2))


WRONG = {"k0": 0, "gamma": 1.0, "warmup": 1.1, "factor": 1.0, "length": 1, "share": 0.0, "longer": 1.0, "shorter": -0.1}
WRONG["most"] = 1.0


@pytest.mark.parametrize("name", [*WRONG, "rounds"])
def test_settings_that_cannot_be(name):
    with pytest.raises(ValueError, match=f"{name} is"):
        OnlineK0(**{name: WRONG.get(name, 0)})
