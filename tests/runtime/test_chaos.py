"""MNIST for 200 rounds on three raylets, under at least twelve faults of at least seven kinds: the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("shake.py")
RUNS = [("sisa", "lenet", 1), ("sisa_d", "lenet", 2), ("nsisa", "lenet", 3), ("sisa_d", "normalised", 4)]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("method", "model", "seed"), RUNS)
def test_two_hundred_rounds_under_faults(tmp_path, data_sets, method, model, seed):
    command = [sys.executable, str(SCRIPT), "--method", method, "--model", model, "--seed", str(seed)]
    command += ["--data", str(data_sets / "mnist"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr[-5000:]}"
    outcome = json.loads(done.stdout.splitlines()[-1])
    happened = outcome["happened"]
    assert len(happened) >= 12
    assert len({fault["kind"] for fault in happened}) >= 7
    assert [fault["round"] for fault in happened] == [fault["round"] for fault in outcome["settings"]["faults"]]
    events = [json.loads(line) for line in (tmp_path / "shaken" / "events.jsonl").read_text().splitlines()]
    told = {event["kind"] for event in events}
    assert {"worker_died", "recovered", "consensus_died", "draining", "resumed", "shard_moved", "resized"} <= told
    killed = {pid for f in happened if f["kind"] in ("kill", "kill two", "freeze") for pid in f["pids"]}
    assert killed <= {event["pid"] for event in events if event["kind"] == "worker_died"}
    assert outcome["drivers"] == 2
    assert outcome["shaken"] == outcome["undisturbed"], outcome
    assert outcome["same_states"], outcome
