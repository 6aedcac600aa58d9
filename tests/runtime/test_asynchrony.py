"""Asynchronous rounds: the rule by which they end, and runs that are repeated from their logs to the bit."""

from __future__ import annotations

import heapq
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from chaos import Chaos, Fault, shaken
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import Rich, events, plain_net, run, states, trajectory
from torch import nn

from pisa_ray import Asynchronous, ConfigError, Constant
from pisa_ray.engine.asynchrony import read_arrivals
from pisa_ray.trainer.settings import Scaling

SHARDS = 7
QUICK = {"frozen_after": 2.0, "look_every": 0.1, "patience": 60.0}


def log(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "arrivals.jsonl").read_text().splitlines()]


@settings(max_examples=100, deadline=None)
@given(
    seconds=st.lists(st.lists(st.integers(1, 9), min_size=30, max_size=30), min_size=2, max_size=6),
    quorum=st.sampled_from([0.01, 0.5, 0.7, 1.0]),
    staleness=st.integers(0, 4),
    deadline=st.none() | st.integers(1, 6),
)
def test_in_any_order_of_arrival_no_message_that_stands_is_too_old(
    tmp_path_factory, seconds, quorum, staleness, deadline
):
    """A simulated fleet, one shard a worker, whose steps take what the draw says."""
    rule = Asynchronous(quorum=quorum, staleness=staleness, deadline=deadline)
    m, rounds = len(seconds), 25
    heard, flying, clock, lines = [0] * m, [], 0.0, []
    made, steps = [0] * m, [0] * m
    for t in range(1, rounds + 1):
        began, arrived = clock, []

        def launch(now, t=t):
            for i in range(m):
                if made[i] < t and not any(i == j for _, j, _ in flying):
                    heapq.heappush(flying, (now + seconds[i][steps[i] % 30], i, t))
                    made[i], steps[i] = t, steps[i] + 1

        launch(clock)
        while not rule.ends(t, heard, {i for i, _ in arrived}, clock - began):
            assert flying, "waits for nobody"
            due = began + deadline if deadline is not None and began + deadline > clock and arrived else flying[0][0]
            if due < flying[0][0]:
                clock = due
                continue
            clock, i, version = heapq.heappop(flying)
            heard[i] = version
            arrived.append((i, version))
            launch(clock)
        assert all(t - staleness <= version <= t for version in heard)
        lines.append(json.dumps({"round": t, "steps": arrived}))
    path = tmp_path_factory.mktemp("log") / "arrivals.jsonl"
    path.write_text("\n".join(lines) + "\n")
    assert len(read_arrivals(path, m, staleness)) == rounds  # which also refuses two steps at one w


def test_rules_that_make_no_sense_are_refused():
    for wrong, message in (
        ({"quorum": 0}, r"Asynchronous\.quorum is 0, but it must be a number above 0 and at most 1"),
        ({"staleness": -1}, r"Asynchronous\.staleness is -1, but it must be a whole number of at least 0"),
        ({"deadline": 0}, r"Asynchronous\.deadline is 0, but it must be a finite number above 0 or None"),
    ):
        with pytest.raises(ConfigError, match=message):
            Asynchronous(**wrong)


def test_methods_without_a_memory_and_partial_rounds_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="SyncOptimizer forgets who does not report"):
        run(tmp_path / "a", method="adam", asynchronous=Asynchronous())
    with pytest.raises(ConfigError, match="participation says who reports, but in asynchronous rounds"):
        run(tmp_path / "b", asynchronous=Asynchronous(), participation=0.5)


@pytest.mark.parametrize("method", ["sisa_d", "nsisa", "mifa"])
def test_in_one_process_all_arrive_and_nothing_changes(tmp_path, method):
    plain = run(tmp_path / "plain", method=method, model=Rich)
    same = run(tmp_path / "same", method=method, model=Rich, asynchronous=Asynchronous(quorum=0.1))
    assert same.weights_sha256 == plain.weights_sha256
    assert trajectory(same) == trajectory(plain)
    assert log(tmp_path / "same") == [{"round": t, "steps": [[i, t] for i in range(SHARDS)]} for t in range(1, 7)]


def write_log(path: Path, rounds: list[list[tuple[int, int]]]) -> Path:
    path.write_text("".join(json.dumps({"round": t, "steps": s}) + "\n" for t, s in enumerate(rounds, 1)))
    return path


EVERYBODY = [(i, 1) for i in range(SHARDS)]
LATE = [EVERYBODY, [(0, 2), (3, 2)], [(1, 2), (1, 3), (4, 3)], [(0, 4), (2, 3), (3, 3), (5, 4)]]


def replayed(path: Path) -> Asynchronous:
    return Asynchronous(staleness=3, replay=path)


def test_a_log_is_obeyed_and_matters(tmp_path):
    """Shards that are not in a round keep their message; other logs give other results; resumed, the same bits."""
    path = write_log(tmp_path / "log", LATE)
    kept = {"model": Rich, "method": "sisa_d", "rounds": 4, "evaluate_every": 1}
    first = run(tmp_path / "a", asynchronous=replayed(path), **kept)
    assert [row["shards_reporting"] for row in first.history] == [7, 2, 2, 4]
    assert log(tmp_path / "a") == [json.loads(line) for line in path.read_text().splitlines()]
    assert run(tmp_path / "b", asynchronous=Asynchronous(staleness=3), **kept).weights_sha256 != first.weights_sha256
    other = write_log(tmp_path / "other", [*LATE[:3], [(0, 4), (2, 4), (3, 3), (5, 4)]])
    assert run(tmp_path / "c", asynchronous=replayed(other), **kept).weights_sha256 != first.weights_sha256

    newest = write_log(tmp_path / "newest", [EVERYBODY, [(0, 2), (3, 2)], [(1, 3), (4, 3)], [(0, 4), (2, 4)]])
    whole = run(tmp_path / "whole", asynchronous=replayed(newest), **kept)
    run(tmp_path / "part", asynchronous=replayed(newest), **kept | {"rounds": 2})
    resumed = run(tmp_path / "part", asynchronous=replayed(newest), resume=True, **kept)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert states(resumed) == states(whole)


@pytest.mark.parametrize(
    ("rounds", "message"),
    [
        ([EVERYBODY, [(9, 2)]], "shard 9 with a step at w of round 2 in round 2"),
        ([EVERYBODY, [(0, 2), (0, 2)]], "shard 0 with a step at w of round 2 in round 2"),
        ([EVERYBODY, [(0, 3)]], "shard 0 with a step at w of round 3"),
        ([EVERYBODY, [(1, 2)], [(1, 3)], [(1, 4)], [(0, 2)]], "shard 0 with a step at w of round 2 in round 5"),
    ],
)
def test_impossible_logs_are_refused(tmp_path, rounds, message):
    with pytest.raises(ConfigError, match=message):
        read_arrivals(write_log(tmp_path / "log", rounds), SHARDS, staleness=2)


def test_files_that_are_no_logs_are_refused(tmp_path):
    for name, content, message in (
        ("a", "{}\n", "is not the log of such a run"),
        ("b", '{"round": 2, "steps": []}\n', "in round 1 not all of 7 shards report"),
        ("c", "\xff", "rounds are missing in it|is not the log"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ConfigError, match=message):
            read_arrivals(tmp_path / name, SHARDS, 2)
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file"):
        read_arrivals(tmp_path / "nothing", SHARDS, 2)
    with pytest.raises(ConfigError, match=r"rounds is 6, but the log to be repeated has 4"):
        run(tmp_path / "run", asynchronous=replayed(write_log(tmp_path / "log", LATE)))


class OneIsSlow(nn.Module):
    """The rich network; the first process but the driver that uses it takes long over every step."""

    def __init__(self, flag: Path, driver: int) -> None:
        super().__init__()
        self.net, self.flag, self.driver = Rich(), flag, driver

    def forward(self, x):
        if self.training and os.getpid() != self.driver:
            try:
                os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                self.flag.write_text(str(os.getpid()))
            except FileExistsError:
                pass
            if self.flag.read_text() == str(os.getpid()):
                time.sleep(0.05)
        return self.net(x)


def uneven_run(path: Path, *, faults=(), workers=3, rule=None, **changes):
    """A run with a slow worker, and its repetition from the log in one process."""
    rule = rule or Asynchronous(quorum=0.4, staleness=8)
    flag = path.parent / "slow"
    arguments = {"method": "sisa_d", "rounds": 24, "asynchronous": rule, "sigma_schedule": Constant(), **changes}
    model = lambda: OneIsSlow(flag, driver)  # noqa: E731
    driver = os.getpid()
    with shaken(Chaos(faults, path.parent / "faults.jsonl")) as chaos:
        result = run(path, workers=Scaling(workers, workers, **QUICK), model=model, **arguments)
    assert len(chaos.happened()) == len(faults)
    return result, arguments


def assert_repeated(path, result, arguments, workers=0):
    rule = replace(arguments["asynchronous"], replay=path / "arrivals.jsonl")
    changes = arguments | {"model": lambda: OneIsSlow(path, os.getpid()), "asynchronous": rule}
    again = run(path.parent / f"again-{workers}", workers=workers, **changes)
    assert again.weights_sha256 == result.weights_sha256
    assert states(again) == states(result)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_who_is_slow_is_not_waited_for_and_the_run_can_be_repeated(tmp_path):
    path = tmp_path / "run"
    result, arguments = uneven_run(path)
    found = log(path)
    assert [line["round"] for line in found] == list(range(1, 25))
    ages = [t["round"] - version for t in found for _, version in t["steps"]]
    assert max(ages) >= 1, "nobody was late"
    assert max(ages) <= 8
    assert any(len(line["steps"]) < SHARDS for line in found)
    assert len(found[-1]["steps"]) > 0
    assert result.history[-1]["shards_reporting"] <= SHARDS
    assert_repeated(path, result, arguments)
    assert_repeated(path, result, arguments, workers=2)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_waiting_for_all_gives_the_synchronous_bits(tmp_path):
    plain = run(tmp_path / "plain", method="nsisa", model=Rich)
    rule = Asynchronous(quorum=1, staleness=0)
    same = run(tmp_path / "same", method="nsisa", model=Rich, workers=3, asynchronous=rule)
    assert same.weights_sha256 == plain.weights_sha256
    kept = {k: v for k, v in states(same).items() if not k.endswith("/said")}  # only here messages outlive their round
    assert kept == {k: v for k, v in states(plain).items() if not k.endswith("/said")}
    assert trajectory(same) == trajectory(plain)


CASES = {
    "a worker": [Fault(7, "kill", 1)],
    "the consensus": [Fault(6, "consensus kill")],
    "a worker, then the consensus, then two": [Fault(5, "kill"), Fault(11, "consensus kill"), Fault(16, "kill two")],
    "both at once": [Fault(9, "consensus kill"), Fault(9, "kill", 1)],
    "the slow one is frozen": [Fault(8, "freeze", 0)],
    "workers come and go": [Fault(5, "shrink"), Fault(11, "grow")],
    "killed after a snapshot was asked for": [Fault(10, "kill", 1, "snapshot")],
}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if c == "both at once" else pytest.mark.slow) for c in CASES]
)
def test_what_dies_meanwhile_leaves_a_run_that_its_log_repeats(tmp_path, case):
    path = tmp_path / "run"
    every = 5 if "snapshot" in case else None
    result, arguments = uneven_run(path, faults=CASES[case], checkpoint_every=every)
    assert len(events(path, "worker_died")) >= ("kill" in str(CASES[case]) and "consensus" not in case)
    assert_repeated(path, result, arguments)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_an_asynchronous_run_is_resumed_and_its_whole_log_repeats_it(tmp_path):
    path = tmp_path / "run"
    uneven_run(path, rounds=10, checkpoint_every=5)
    result, arguments = uneven_run(path, resume=True, checkpoint_every=5)
    assert [line["round"] for line in log(path)] == list(range(1, 25))
    assert_repeated(path, result, arguments | {"resume": False})


def test_who_is_in_a_step_that_a_round_has_ended_without_does_not_evaluate():
    """In round 6, asked for test rows at the w that it begins with."""
    from pisa_ray.actors.asynchronous import AsynchronousRounds, Flight
    from pisa_ray.actors.crew import Member
    from pisa_ray.actors.snapshots import RoundRecord
    from pisa_ray.engine.reports import RoundSpec

    members = [Member(None, None, id=number) for number in range(3)]
    core = SimpleNamespace(
        crew=SimpleNamespace(members=members),
        snapshots=SimpleNamespace(longest=50),
        state=SimpleNamespace(job=SimpleNamespace(present=range(3)), done=5),
    )
    rounds = AsynchronousRounds(core, Asynchronous(), lambda round_, steps: None, None)
    rounds.flights = {
        ticket: Flight(member, (ticket,), None, None, None, record=RoundRecord(RoundSpec(began, 1.0), None))
        for ticket, (member, began) in enumerate(zip(members, [6, 5, 3], strict=True))
    }
    assert rounds.evaluators() == members[:1]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_deadline_ends_a_round(tmp_path):
    path = tmp_path / "run"
    uneven_run(path, rule=Asynchronous(quorum=1, staleness=8, deadline=0.02), rounds=12)
    assert any(len(line["steps"]) < SHARDS for line in log(path))


def test_the_plain_network_is_the_same(tmp_path):
    """The log of a run without hidden state, obeyed in one process, against a loop over its steps."""
    path = write_log(tmp_path / "log", LATE)
    a, b = (
        run(tmp_path / name, model=plain_net, method="sisa", asynchronous=replayed(path), rounds=4) for name in "ab"
    )
    assert a.weights_sha256 == b.weights_sha256
