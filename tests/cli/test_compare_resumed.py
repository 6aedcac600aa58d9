"""Comparisons that go on after a kill, the death of Ray or an interrupt, to the same tables."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from compare_files import FILE, SISA_D, changed

from pisa_ray.cli.compare import compare
from pisa_ray.cli.main import main

TABLES = ("table.md", "table.csv", "table.json", "index.html")


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


#: Two rows, the second long enough to be stopped in the middle.
LONG = changed(
    algorithms={"SISA": FILE["algorithms"]["SISA"], "SISA-D": {**SISA_D, "batch_size": 1}},
    partitions__shuffled={"kind": "iid", "shards": 5},
    base__rounds=24,
    base__evaluate_every=6,
)


@pytest.fixture(scope="module")
def undisturbed(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert compare(LONG, out, progress=False).status == "finished"
    return tables(out)


def second_is_under_way(out: Path) -> bool:
    """Whether a cell has ended and another is in the middle."""
    return bool(list(out.glob("runs/sisa/*/*/result.json")) and list(out.glob("runs/sisa-d/*/*/metrics.jsonl")))


def under_way(folder: Path, **options: Any) -> subprocess.Popen[str]:
    """The comparison in a process with a Ray of its own, in the middle of its second row."""
    (folder / "c.yaml").write_text(yaml.safe_dump(LONG, sort_keys=False))
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "pisa_ray", "compare", "c.yaml", "--out", "out"]
    driver = subprocess.Popen(command, text=True, env=environment, start_new_session=True, **options)
    until = time.monotonic() + 120
    while not second_is_under_way(folder / "out"):
        assert driver.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    return driver


def raylet_of(driver: subprocess.Popen[str]) -> int:
    """The process id of the raylet that a driver has started."""
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = re.search(r"PPid:\s+(\d+)", (place / "status").read_text())
            if parent and int(parent[1]) == driver.pid and b"raylet/raylet" in (place / "cmdline").read_bytes():
                return int(place.name)
    raise AssertionError("there is no raylet")


@pytest.mark.ray
def test_after_a_kill_it_goes_on_to_the_same_tables(folder: Path, undisturbed: dict[str, bytes]) -> None:
    driver = under_way(folder)
    driver.kill()
    driver.wait()
    assert not (folder / "out" / "table.md").exists()

    assert compare(LONG, "out", resume=True, progress=False).status == "finished"

    assert tables(folder / "out") == undisturbed


@pytest.mark.ray
def test_where_ray_dies_what_is_left_is_not_failed(folder: Path, undisturbed: dict[str, bytes]) -> None:
    driver = under_way(folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.kill(raylet_of(driver), signal.SIGKILL)
    _, told = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert "pisa-ray: Ray's processes on this machine are gone (killed, or out of memory); a resume goes on" in told
    assert "Traceback" not in told

    assert compare(LONG, "out", resume=True, progress=False).status == "finished"

    assert tables(folder / "out") == undisturbed


@pytest.mark.slow
@pytest.mark.ray
def test_an_interrupt_lets_runs_save_and_says_how_to_go_on(
    folder: Path, undisturbed: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "c.yaml").write_text(yaml.safe_dump(LONG, sort_keys=False))

    def interrupt() -> None:
        while not second_is_under_way(folder / "out") and threading.main_thread().is_alive():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert main(["compare", "c.yaml", "--set", "score=test_accuracy", "--out", "out", "--quiet"]) == 130

    (_, half) = sorted((folder / "out").glob("runs/*/two-labels/*/result.json"))
    assert json.loads(half.read_text())["status"] == "interrupted"
    go_on = shlex.split(capsys.readouterr().out.partition("Go on with: ")[2])
    assert go_on[:5] == ["pisa-ray", "compare", "c.yaml", "--set", "score=test_accuracy"]
    assert go_on[5:] == ["--out", str(folder / "out"), "--resume"]
    assert main([*go_on[1:], "--quiet"]) == 0
    assert tables(folder / "out") == undisturbed
