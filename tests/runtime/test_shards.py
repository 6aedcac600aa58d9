"""Shards that join or leave the problem while a run goes on: the same bits anywhere, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from chaos import Chaos, Fault, shaken
from runs import METHODS, Rich, events, plain_net, states, trajectory, uneven

from pisa_ray import Asynchronous, Clip, ConfigError, Data, Distorted, Geometric, Noise, PisaTrainer, TrimmedMean
from pisa_ray.algorithm import memory_of
from pisa_ray.data.digits import digits_table
from pisa_ray.engine.fleet import LocalFleet
from pisa_ray.errors import StatesLostError
from pisa_ray.schedulers import SigmaSchedule
from pisa_ray.schedulers.schedule import NOTHING
from pisa_ray.trainer import checkpoint
from pisa_ray.trainer.changes import Asked
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.settings import Scaling


class Ask(SigmaSchedule):
    """A schedule of sigma that also asks for changes when a round is about to begin."""

    def __init__(self, when):
        self.when, self.trainer, self.schedule = dict(when), None, Geometric(0.9, 2)

    def grow(self, sigma, round_, memory=NOTHING):
        for action, value in self.when.pop(round_, ()):  # once, even if the round is done again
            getattr(self.trainer, action)(value)
        return self.schedule.grow(sigma, round_)


def trainer(path, *, workers=0, method="sisa", rounds=8, when=None, **changes):
    ask = Ask(when or {})
    arguments = {
        "model": plain_net,
        "data": Data(train="digits", test="digits:test"),
        "partition": uneven(),
        "algorithm": METHODS[method],
        "sigma_schedule": ask,
        "rounds": rounds,
        "batch_size": 16,
        "evaluate_every": 3,
        "checkpoint_every": None,
        "scaling_config": workers,
        "run_config": path,
        "progress": False,
        **changes,
    }
    ask.trainer = PisaTrainer(**arguments)
    return ask.trainer


def both(extra, leaves=3):
    return {4: [("remove_shard", 2), ("add_shard", extra)], 6: [("remove_shard", leaves)]}


MODES = {
    "all": {},
    "some": {"participation": 0.5},
    "asynchronous": {"asynchronous": Asynchronous(quorum=1.0, staleness=0)},
    "trimmed": {"robust": TrimmedMean(0.2)},
}


# The same bits anywhere


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_has_the_shards_that_it_had(tmp_path, extra, mode):
    whole = trainer(tmp_path / "whole", when=both(extra), evaluate_every=1, **MODES[mode]).fit()
    for end in (4, 5, 6, 8):  # a change is saved after the round before it
        last = trainer(
            tmp_path / "parts",
            rounds=end,
            when=both(extra) if end == 4 else {6: [("remove_shard", 3)]},
            resume=True,
            evaluate_every=1,
            **MODES[mode],
        ).fit()
    assert trajectory(last) == trajectory(whole)
    assert states(last) == states(whole)
    assert {key.partition("/")[0] for key in states(whole)} == {"0", "1", "4", "5", "6", "7", "w"}
    saved = checkpoint.latest(whole.path / "checkpoints").progress.changes
    assert [(change["round"], change["kind"], change["shard"]) for change in saved] == [
        (3, "shard_removed", 2),
        (3, "shard_added", 7),
        (5, "shard_removed", 3),
    ]
    assert [event["rows"] for event in events(whole.path, "shard_added")] == [60]
    assert [e["round"] for e in events(whole.path, "shard_removed")] == [3, 5]
    assert [e["round"] for e in events(whole.path, "checkpoint_saved")] == [3, 5, 8]


def ends_right_after_a_change(path, extra, monkeypatch, **changes):
    """The checkpoint that is written at once, before round 4, is what such a run is resumed from."""
    begin = LocalFleet.begin

    def dies(self, spec, *arguments):
        if spec.number == 4:
            raise KeyboardInterrupt
        begin(self, spec, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFleet, "begin", dies)
        with pytest.raises(KeyboardInterrupt):
            trainer(path, when=both(extra), **changes).fit()


def test_a_run_that_ends_right_after_a_change_goes_on_with_it(tmp_path, extra, monkeypatch):
    whole = trainer(tmp_path / "whole", when=both(extra)).fit()
    ends_right_after_a_change(tmp_path / "parts", extra, monkeypatch)
    last = trainer(tmp_path / "parts", when={6: [("remove_shard", 3)]}, resume=True).fit()
    assert trajectory(last)[-1] == trajectory(whole)[-1]
    assert states(last) == states(whole)


@pytest.mark.parametrize("method", [n for n in METHODS if memory_of(METHODS[n]) != "founders"])
def test_every_method_but_scaffold_goes_on(tmp_path, extra, method):
    """With a network that has all that could make one shard's gradient depend on another's, where the method can."""
    model = plain_net if method in ("hutchinson", "moon", "fisher") else Rich
    arguments = {"method": method, "participation": 0.5, "model": model}
    whole = trainer(tmp_path / "whole", when=both(extra), **arguments).fit()
    trainer(tmp_path / "parts", rounds=4, when=both(extra), **arguments).fit()
    last = trainer(tmp_path / "parts", when={6: [("remove_shard", 3)]}, resume=True, **arguments).fit()
    assert states(last) == states(whole)
    assert trajectory(last)[-1] == trajectory(whole)[-1]
    assert np.isfinite(last.metrics["train_loss"])


def test_what_is_not_saved_is_done_again_when_states_are_lost(tmp_path, extra, monkeypatch):
    save, lost = LocalFleet.save, [True]

    def fails(self, folder):
        if self._job.removed and lost:
            lost.clear()
            raise StatesLostError("all processes have died.")
        return save(self, folder)

    monkeypatch.setattr(LocalFleet, "save", fails)
    when = {4: [("remove_shard", 2), ("add_shard", extra)]}
    result = trainer(tmp_path / "run", when=when, checkpoint_every=2).fit()
    saved = checkpoint.latest(result.path / "checkpoints").progress.changes
    assert [(c["round"], c["kind"], c["shard"]) for c in saved] == [(2, "shard_removed", 2), (2, "shard_added", 7)]
    assert [event["round"] for event in events(result.path, "shard_added")] == [3, 2]
    assert [change["round"] for change in RunDirectory(result.path).records.changes()] == [2, 2]
    assert {key.partition("/")[0] for key in states(result)} == {*"0134567", "w"}


def test_data_that_joined_must_not_change(tmp_path, extra):
    mine = tmp_path / "mine.parquet"
    mine.write_bytes(extra.read_bytes())
    trainer(tmp_path / "run", rounds=4, when={2: [("add_shard", mine)]}).fit()
    pq.write_table(digits_table("digits:test").slice(0, 61), mine)
    with pytest.raises(ConfigError, match="has changed since it joined the run as shard 7: put the old data back"):
        trainer(tmp_path / "run", resume=True).fit()
    mine.unlink()
    with pytest.raises(ConfigError, match="do not exist"):
        trainer(tmp_path / "run", resume=True).fit()


def test_a_change_before_the_first_round_and_all_founders_gone(tmp_path, extra):
    """All but who has joined may leave; the run goes on with that one, and its losses are its own."""
    when = {1: [("add_shard", extra)], 3: [("remove_shard", i) for i in range(7)]}
    for mode in ("all", "some"):
        result = trainer(tmp_path / mode, when=when, rounds=60, evaluate_every=1, **MODES[mode]).fit()
        assert result.history[0]["shards_reporting"] == 8
        assert {row["shards_reporting"] for row in result.history[2:]} == {1}
        assert result.history[-1]["train_loss"] == result.history[-1]["worst_shard_loss"]
        assert result.history[-1]["train_loss"] < result.history[2]["train_loss"]


def test_held_out_rows_of_those_that_are_there(tmp_path, extra):
    """Who has joined holds nothing out, which no mean and no worst shard counts."""
    data = Data(train="digits", test="digits:test", validation=0.2)
    when = {2: [("add_shard", extra), ("remove_shard", 6)]}
    result = trainer(tmp_path / "run", when=when, evaluate_every=1, data=data).fit()
    assert all(np.isfinite(row["validation_loss"]) for row in result.history)
    assert all(row["validation_worst_shard_loss"] >= row["validation_loss"] for row in result.history)


def test_the_log_of_an_asynchronous_run_says_that_it_cannot_be_repeated(tmp_path, extra):
    trainer(tmp_path / "run", when=both(extra), **MODES["asynchronous"]).fit()
    rule = replace(MODES["asynchronous"]["asynchronous"], replay=tmp_path / "run" / "arrivals.jsonl")
    with pytest.raises(ConfigError, match=r"shards joined, left or were away after round 3"):
        trainer(tmp_path / "again", **MODES["asynchronous"] | {"asynchronous": rule})


# With workers


@pytest.fixture(scope="module")
def alone(tmp_path_factory, extra):
    """Runs in one process, by mode: what it has to be with workers, too."""
    runs = {}

    def of(mode):
        if mode not in runs:
            runs[mode] = trainer(tmp_path_factory.mktemp(mode) / "run", when=both(extra), **MODES[mode]).fit()
        return runs[mode]

    return of


QUICK = {"frozen_after": 5.0, "look_every": 0.1, "patience": 60.0}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("mode", MODES)
def test_the_same_bits_with_two_workers(tmp_path, extra, alone, mode):
    result = trainer(tmp_path / "run", workers=Scaling(2, 2, **QUICK), when=both(extra), **MODES[mode]).fit()
    assert trajectory(result) == trajectory(alone(mode))
    assert states(result) == states(alone(mode))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    "mode", ["all", pytest.param("some", marks=pytest.mark.slow), pytest.param("asynchronous", marks=pytest.mark.slow)]
)
def test_whatever_dies_before_while_and_after_shards_join_and_leave(tmp_path, extra, alone, mode):
    """The newcomer's worker, too: it is rebuilt from its initial state and the rounds since it joined."""
    faults = [
        Fault(3, "kill", 0, "change"),
        Fault(3, "consensus kill", 0, "save"),
        Fault(4, "kill", 1),
        Fault(5, "consensus kill", 0, "change"),
        Fault(6, "kill two"),
    ]
    with shaken(Chaos(faults, tmp_path / "faults")) as chaos:
        result = trainer(tmp_path / "run", workers=Scaling(2, 2, **QUICK), when=both(extra), **MODES[mode]).fit()
        assert len(chaos.happened()) == len(faults)
    assert events(result.path, "worker_died")
    assert trajectory(result) == trajectory(alone(mode))
    assert states(result) == states(alone(mode))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_asynchronous_rounds_settle_before_shards_join_and_leave(tmp_path, extra):
    """When exactly is up to chance; who has left does not report afterwards, and who joins is waited for."""
    rule = Asynchronous(quorum=0.3, staleness=4)
    arguments = {"asynchronous": rule, "workers": Scaling(2, 2, **QUICK), "rounds": 16}
    path = trainer(tmp_path / "run", when=both(extra), **arguments).fit().path
    lines = [json.loads(line) for line in (path / "arrivals.jsonl").read_text().splitlines()]
    arrived = {line["round"]: [shard for shard, _ in line["steps"]] for line in lines if "steps" in line}
    assert sorted(arrived) == list(range(1, 17))
    assert [line["round"] for line in lines if "changed" in line] == sorted(
        {event["round"] for event in events(path, "shard_removed")}
    )
    (joined,) = events(path, "shard_added")
    assert joined["round"] >= 3
    assert joined["shard"] in arrived[joined["round"] + 1]
    assert not any(joined["shard"] in arrived[r] for r in range(1, joined["round"] + 1))
    for event in events(path, "shard_removed"):
        assert not any(event["shard"] in arrived[r] for r in range(event["round"] + 1, 17))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("mode", ["some", "asynchronous"])
def test_resumed_with_two_workers_right_after_a_change(tmp_path, extra, alone, monkeypatch, mode):
    """A newcomer that has said nothing yet is told to nobody, or its message counts for nothing."""
    ends_right_after_a_change(tmp_path / "run", extra, monkeypatch, **MODES[mode])
    more = {"when": {6: [("remove_shard", 3)]}, "workers": Scaling(2, 2, **QUICK), "resume": True}
    result = trainer(tmp_path / "run", **more, **MODES[mode]).fit()
    assert trajectory(result)[-1] == trajectory(alone(mode))[-1]
    assert states(result) == states(alone(mode))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_more_workers_than_shards_that_are_left(tmp_path, extra):
    when = {2: [("remove_shard", i) for i in range(6)], 5: [("add_shard", extra)]}
    alone = trainer(tmp_path / "alone", when=when).fit()
    result = trainer(tmp_path / "run", workers=Scaling(2, 2, **QUICK), when=when).fit()
    assert states(result) == states(alone)
    assert result.history[0]["workers"] == 1  # of round 3; in round 5 another may be started again


# What is refused


def refused(match, ask, **changes):
    with pytest.raises(ConfigError, match=match):
        ask(trainer("nowhere", **changes))


def test_what_cannot_be_is_refused_where_it_is_asked_for(tmp_path, extra):
    def remove(*shards):
        return lambda it: [it.remove_shard(i) for i in shards]

    def add(path=extra):
        return lambda it: it.add_shard(path)

    refused("there is no shard 7 that could leave: name one of 0, 1, 2, 3, 4, 5, 6", remove(7))
    refused("shard 2 has left already: name one of 0, 1, 3, 4, 5, 6", remove(2, 2))
    refused("shard 6 is the only one left, and a run needs one: let another one join first", remove(*range(7)))
    refused("cannot leave: participation.1. names no other shard", remove(3), participation=[[0, 1, 2], [3]])
    refused("participation lists the shards of each round and cannot name one", add(), participation=[[0], [1, 2]])
    refused("shards cannot join or leave a run of Scaffold", remove(0), method="scaffold")
    refused("shards cannot join or leave a run with robust: clip", remove(0), robust=Clip())
    refused("robust leaves out no shard on either side", remove(0, 1, 2), robust=TrimmedMean(0.2))
    refused("the partition distorts each shard in its own way", add(), partition=Distorted(uneven(), Noise(0.1)))
    refused("do not exist", add(tmp_path / "nothing.parquet"))
    refused("cannot be read as a Parquet file", add(Path(__file__)))
    refused("data.train is not a table", add(), data=Data(train=[(torch.zeros(64), k % 10) for k in range(500)]))
    table = digits_table("digits:test").slice(0, 4)
    whole = pc.floor(table["features"].combine_chunks().flatten()).cast(pa.int64())
    integers = pa.FixedSizeListArray.from_arrays(whole, 64)
    for name, changed, match in (
        ("columns", table.rename_columns(["features", "y"]), "data.label is 'label', but .* has no such column"),
        ("integers", table.set_column(0, "features", integers), "inputs that are integers"),
        ("shape", table.set_column(0, "features", pa.array([[0.0] * 3] * 4, pa.list_(pa.float32(), 3))), "of shape"),
        ("real", table.set_column(1, "label", pa.array([0.0, 1.0, 2.0, 3.0])), "labels of type float32"),
        ("eleven", table.set_column(1, "label", pa.array([0, 1, 10, 3])), "labels from 0 to 10, but the model knows"),
        ("minus", table.set_column(1, "label", pa.array([0, -1, 1, 3])), "labels from -1 to 3, but the model knows"),
    ):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(changed, path)
        refused(match, add(path))
        if name == "eleven":
            refused("but the model knows those from 0 to 9", add(path), loss=partial(torch.nn.functional.cross_entropy))
    assert not Path("nowhere").exists()


def test_what_another_process_asks_for_is_refused_in_the_log(tmp_path):
    it = trainer(tmp_path / "run", rounds=3)
    (tmp_path / "run").mkdir()
    RunDirectory(tmp_path / "run").requests.ask_shards(Asked(remove=70))
    RunDirectory(tmp_path / "run").write("shards-0.json", {"nonsense": 1})
    assert it.fit().status == "finished"
    (event,) = events(tmp_path / "run", "shards_refused")
    assert event["message"].startswith("there is no shard 70")
    assert not list((tmp_path / "run").glob("shards-*.json"))
