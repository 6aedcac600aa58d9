"""Ctrl-C and SIGTERM of the real command with real workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits.yaml"


def command(out: Path, rounds: int, *more: str) -> list[str]:
    settings = [f"--set={s}" for s in (f"rounds={rounds}", "evaluate_every=10", "workers=2", "checkpoint.every=null")]
    return [sys.executable, "-m", "pisa_ray", "train", str(EXAMPLE), "--out", str(out), *settings, *more]


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_round_and_leaves_a_checkpoint(tmp_path, number):
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    process = subprocess.Popen(
        command(tmp_path / "run", 100_000),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    metrics, until = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 180
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 2):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until, "no round was finished"
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as terminals and schedulers do
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "SIGTERM received" not in err
    assert "--resume" in out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "interrupted"
    manifest = next((tmp_path / "run" / "checkpoints").glob("round-*/manifest.json"))
    assert json.loads(manifest.read_text())["progress"]["round"] == result["rounds"]


@pytest.mark.ray
def test_a_second_signal_stops_at_once_and_the_run_can_be_resumed(tmp_path):
    out = tmp_path / "run"
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    settings = ["--set=checkpoint.every=5", "--set=workers=1"]
    process = subprocess.Popen(
        [*command(out, 100_000), *settings], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    until = time.monotonic() + 180
    while not list((out / "checkpoints").glob("round-*/manifest.json")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until, "no checkpoint was written"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    manifests = (out / "checkpoints").glob("round-*/manifest.json")
    saved = max(json.loads(manifest.read_text())["progress"]["round"] for manifest in manifests)
    again = [*command(out, 100_000), *settings, "--set=workers=0", "--resume", "--set=stop.seconds=0.001"]
    resumed = subprocess.run(again, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert f"resuming at round {saved}" in resumed.stderr
