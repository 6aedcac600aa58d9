"""`pisa-ray shards`: shards join and leave a run that is going on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from quick_runs import lines, result, rows, train

from pisa_ray.cli.main import main
from pisa_ray.data.digits import digits_table
from pisa_ray.schedulers import Constant
from pisa_ray.trainer.requests import Requests
from pisa_ray.trainer.watch import Watch


def during(monkeypatch: pytest.MonkeyPatch, round_: int, what: Callable[[], None]) -> None:
    """Have something happen when a round of the next run is about to begin."""

    def grow(_: Constant, sigma: float, now: int, memory: Any) -> float:
        if now == round_:
            what()
        return sigma

    monkeypatch.setattr(Constant, "grow", grow)
    monkeypatch.setattr(Watch, "frozen", lambda _, row: None)  # which looks at rounds to come


def test_shards_join_and_leave_a_run_that_is_going_on(
    config: Path, table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, new = config.parent / "run", config.parent / "new.parquet"
    pq.write_table(digits_table("digits:test").slice(0, 30), new)
    words = ["shards", str(run)]
    bad = [
        (["--remove", "5"], "there is no shard 5 that could leave: name one of 0, 1, 2, 3, 4."),
        (["--remove", "-1"], "there is no shard -1 that could leave"),
        (["--add", str(table)], "data.input is 'features', but "),
        (["--add", "nowhere.parquet"], "nowhere.parquet' do not exist"),
        (["--add", "wide.parquet"], "has inputs of shape (2,), but data.train has (64,): use data of the same kind."),
        (["--add", "beyond.parquet"], "has labels from 0 to 10, but the model knows those from 0 to 9"),
    ]
    features = pq.read_table(new)["features"]
    two = pa.array(np.zeros((3, 2), np.float32).tolist(), pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"features": two, "label": [1, 2, 3]}), config.parent / "wide.parquet")
    pq.write_table(
        pa.table({"features": features.slice(0, 2), "label": pa.array([0, 10])}), config.parent / "beyond.parquet"
    )

    def ask() -> None:
        capsys.readouterr()
        for options, sentence in bad:
            assert main([*words, *options]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert sentence in line
        assert not list(run.glob("shards-*"))
        assert main([*words, "--remove", "3"]) == 0
        assert main([*words, "--add", "new.parquet"]) == 0  # as seen from here
        assert "asked for" in capsys.readouterr().out
        assert main([*words, "--remove", "3"]) == 2  # that is under way
        assert "shard 3 has left already: name one of 0, 1, 2, 4, 5." in capsys.readouterr().err

    during(monkeypatch, 4, ask)
    assert train(config, "run", "evaluate_every=1") == 0
    assert "after round 3: shard 3 with " in capsys.readouterr().err
    assert [row["shards_reporting"] for row in rows(run)] == [5, 5, 5, 5, 5, 5]
    assert not list(run.glob("shards-*"))
    changed = [event for event in lines(run / "events.jsonl") if event["kind"].startswith("shard_")]
    assert [(event["kind"], event["shard"], event["round"]) for event in changed] == [
        ("shard_removed", 3, 3),
        ("shard_added", 5, 3),
    ]
    assert (changed[1]["train"], changed[1]["rows"]) == (str(new), 30)
    assert main(["evaluate", str(run), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert [(shard["shard"], shard["rows"]) for shard in measured["shards"]][3:] == [(4, ANY), (5, 30)]
    assert measured["weights_sha256"] == result(run)["weights_sha256"]
    assert main([*words, "--remove", "0"]) == 2
    assert "no run is going on in" in capsys.readouterr().err


def test_what_was_asked_for_outlives_a_driver_that_did_not_see_it(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config.parent / "run"
    during(monkeypatch, 3, lambda: main(["shards", str(run), "--remove", "1"]) and None)
    with monkeypatch.context() as patch:
        patch.setattr(Requests, "asked_shards", lambda _: [])
        assert train(config, "run", "rounds=3") == 0
    monkeypatch.undo()
    monkeypatch.chdir(config.parent)
    assert len(list(run.glob("shards-*"))) == 1
    assert train(config, "run", "rounds=6", "evaluate_every=1", resume=True) == 0
    assert [row["shards_reporting"] for row in rows(run)][-3:] == [4, 4, 4]
    assert not list(run.glob("shards-*"))
    assert "shard 1 with " in capsys.readouterr().err
