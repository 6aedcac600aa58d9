"""Ray's own processes die or hang under a run of the real command, and signals reach its whole process group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pisa_ray.actors import ray_processes
from pisa_ray.actors.last_word import SUDDEN

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits.yaml"
PATIENCE = 180


class Process:
    """A run with a Ray of its own, in a process group of its own."""

    def __init__(self, out: Path, *more: str) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        self.out, settings = out, ["rounds=1000000", "evaluate_every=10", "workers=1", "checkpoint.every=20"]
        self.command = [sys.executable, "-m", "pisa_ray", "train", str(EXAMPLE), "--out", str(out)]
        self.command += [f"--set={setting}" for setting in settings]
        self.it = subprocess.Popen(
            [*self.command, *more],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def until(self, there: Callable[[], object]) -> None:
        until = time.monotonic() + PATIENCE
        while not there():
            assert self.it.poll() is None, self.it.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.05)

    def all(self) -> dict[int, str]:
        """Command lines of its processes, by their ids."""
        found, newest = {self.it.pid}, {self.it.pid}
        while newest:
            newest = ray_processes.children(newest) - found
            found |= newest
        return {pid: command(pid) for pid in found if command(pid)}

    def find(self, part: str) -> int | None:
        return next((pid for pid, text in self.all().items() if part in text.split("--", 1)[0]), None)

    def end(self, timeout: float) -> tuple[int, str]:
        _, told = self.it.communicate(timeout=timeout)
        return self.it.returncode, told


def command(pid: int) -> str:
    try:
        if (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return ""
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def start(*more: str) -> Process:
        processes.append(Process(tmp_path / "run", *more))
        return processes[-1]

    yield start
    for process in processes:
        if process.it.poll() is None:
            os.killpg(process.it.pid, signal.SIGKILL)


@pytest.fixture
def going(started: Callable[..., Process]) -> Process:
    """A run that has a checkpoint."""
    process = started()
    process.until(lambda: list((process.out / "checkpoints").glob("round-*/manifest.json")))
    return process


@pytest.mark.parametrize("victim", ["raylet/raylet", "gcs/gcs_server", "RuntimeEnvAgent", "DashboardAgent"])
def test_a_run_whose_ray_dies_ends_within_seconds_with_a_sentence_and_can_be_resumed(going, victim):
    others = set(going.all()) - {going.it.pid}
    os.kill(going.find(victim), signal.SIGKILL)
    status, told = going.end(timeout=60)
    assert status == 1, told
    assert told.strip().splitlines()[-1].startswith("pisa-ray: "), told
    assert "goes on from the last checkpoint" in told
    assert "Traceback" not in told
    wait_for_the_end_of(others)
    again = [*going.command, "--set=workers=0", "--resume", "--set=stop.seconds=0.001"]
    resumed = subprocess.run(again, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming at round" in resumed.stderr


def test_a_driver_that_is_killed_leaves_no_process_of_its_ray(going):
    others = set(going.all()) - {going.it.pid}
    assert len(others) > 5
    going.it.kill()
    status, told = going.end(timeout=60)
    assert status == -signal.SIGKILL
    assert told.strip().splitlines()[-1] == SUDDEN
    wait_for_the_end_of(others)


def wait_for_the_end_of(pids: set[int]) -> None:
    until = time.monotonic() + 30
    while left := {pid: command(pid) for pid in pids if command(pid)}:
        assert time.monotonic() < until, left
        time.sleep(0.2)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_the_whole_group_ends_the_run_after_its_round(going, number):
    os.killpg(going.it.pid, number)
    os.killpg(going.it.pid, number)  # as `timeout` does
    status, told = going.end(timeout=120)
    assert status == 130, told
    assert "Traceback" not in told
    result = json.loads((going.out / "result.json").read_text())
    manifests = (going.out / "checkpoints").glob("round-*/manifest.json")
    saved = {json.loads(manifest.read_text())["progress"]["round"] for manifest in manifests}
    assert result["status"] == "interrupted"
    assert result["rounds"] in saved


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_of_ray_that_hangs_can_be_interrupted(started, number):
    process = started()
    process.until(lambda: process.find("raylet/raylet"))
    others = set(process.all()) - {process.it.pid}
    os.kill(process.find("raylet/raylet"), signal.SIGSTOP)
    process.it.send_signal(number)
    status, told = process.end(timeout=60)
    assert status == 130, told
    assert told.strip() == "pisa-ray: stopped while Ray was starting; nothing has begun."
    assert not process.out.exists()
    wait_for_the_end_of(others)
