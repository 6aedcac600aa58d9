"""Random faults from outside: `python tests/campaign.py [--runs N] [--seed S] [--first K] [--out FOLDER]`.

Each run is the real command in a process of its own with a Ray of its own, on scikit-learn's digits, one digit a
shard. Its workers, consensus, raylet, agents or driver get signals in rounds that the seed chooses; what ends is
resumed. A run is as it should be if it ends with the weights of the same run in one process, if every end before that
came with a sentence (but for SIGKILL of the driver), if nothing waited for more than the limit, and if no process was
left behind. Prints a table, and exits with 1 if a run was not as it should be. It takes ten minutes and more; signals
go to processes of these runs only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 60

#: Seconds in which a run has to finish a round, or to end.
LIMIT = 150.0

#: Seconds after its driver in which a Ray of a run's own has to be gone.
LEAVE = 30.0

METHODS: dict[str, dict[str, Any]] = {
    "sisa": {"kind": "sisa", "sigma": 0.3, "rho": 30},
    "sisa_d": {"kind": "sisa_d", "sigma": 60, "rho": 540},
    "nsisa": {"kind": "nsisa", "sigma": 20, "rho": 50},
    "fedavg": {"kind": "fedavg", "lr": 0.1, "steps": 2},
    "scaffold": {"kind": "scaffold", "lr": 0.1, "steps": 2},
    "nothing set": {},
}

#: What can happen, with the processes that it happens to. Frozen ones are woken a while later, or never.
FAULTS = {
    "worker killed": ("WorkerActor", signal.SIGKILL),
    "all workers killed": ("WorkerActor*", signal.SIGKILL),
    "consensus killed": ("ConsensusActor", signal.SIGKILL),
    "worker and consensus killed": ("WorkerActor+ConsensusActor", signal.SIGKILL),
    "worker frozen": ("WorkerActor", signal.SIGSTOP),
    "all frozen for a while": ("*", signal.SIGSTOP),
    "raylet killed": ("raylet/raylet", signal.SIGKILL),
    "gcs killed": ("gcs/gcs_server", signal.SIGKILL),
    "dashboard agent killed": ("dashboard/agent.py|DashboardAgent", signal.SIGKILL),
    "runtime env agent killed": ("runtime_env/agent/main.py|RuntimeEnvAgent", signal.SIGKILL),
    "driver killed": ("driver", signal.SIGKILL),
    "driver interrupted": ("driver", signal.SIGINT),
    "driver terminated": ("driver", signal.SIGTERM),
    "driver hung up": ("driver", signal.SIGHUP),
    "group terminated": ("group", signal.SIGTERM),
    "resized": ("resize", 0),
}


@dataclass
class Run:
    """A run under fire.

    Attributes:
        folder: Its run directory.
        config: What is run.
        faults: By round, what happens then.
        ends: How each of its drivers ended.
        wrong: What was not as it should be.
    """

    folder: Path
    config: Path
    faults: list[tuple[int, str]]
    luck: random.Random
    ends: list[str] = field(default_factory=list)
    wrong: str = ""

    def go(self) -> None:
        """Start it, strike, and resume it until it is finished or something is wrong."""
        for attempt in range(len(self.faults) + 2):
            if self._drive(resume=attempt > 0):
                return
        self.wrong = self.wrong or "was not finished after so many resumes"

    def _drive(self, *, resume: bool) -> bool:
        """One driver's life; returns whether there is nothing more to be done."""
        errors = self.folder.with_suffix(f".{len(self.ends)}.err")
        with errors.open("w") as told:
            command = [sys.executable, "-m", "pisa_ray", "train", str(self.config), "--out", str(self.folder)]
            driver = subprocess.Popen(
                command + ["--resume"] * resume,
                stdout=told,
                stderr=told,
                env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
                start_new_session=True,
            )
            killed = self._watch(driver)
        left = self._left_behind(driver.pid)
        status, text = driver.returncode, errors.read_text()
        self.ends.append("killed" if killed else str(status))
        if self.wrong:
            return True
        if "Traceback (most recent call last)" in text:
            self.wrong = f"a traceback, see {errors}"
        elif left:
            self.wrong = f"left processes behind: {'; '.join(left)}"
        elif status == 0:
            return True
        elif not killed and not any(f in text for f in ("pisa-ray: ", "Go on with: ")):
            self.wrong = f"ended with {status} and without a word, see {errors}"
        return bool(self.wrong)

    def _watch(self, driver: subprocess.Popen[Any]) -> bool:
        """Strike when it is time, until the driver has ended; returns whether it was killed."""
        self._everyone: set[int] = set()
        killed, last, moved = False, -1, time.monotonic()
        while driver.poll() is None:
            now = self._round()
            if now != last:
                last, moved = now, time.monotonic()
                self._everyone |= {pid for pid, _ in processes_of(driver.pid)}
            while self.faults and now >= self.faults[0][0]:
                _, kind = self.faults.pop(0)
                killed |= kind == "driver killed"
                self._strike(kind, driver)
                moved = time.monotonic()
            if time.monotonic() - moved > LIMIT:
                self.wrong = f"hung for {LIMIT:.0f} s after round {now}"
                os.killpg(driver.pid, signal.SIGKILL)
            time.sleep(0.02)
        return killed

    def _left_behind(self, driver: int) -> list[str]:
        """What is still there of a driver's processes a while after it; frozen ones are woken first, all are ended."""
        until = time.monotonic() + LEAVE
        for pid, _ in processes_of(driver, self._everyone):
            _send(pid, signal.SIGCONT)
        while (there := list(processes_of(driver, self._everyone))) and time.monotonic() < until:
            time.sleep(0.2)
        for pid, _ in there:
            _send(pid, signal.SIGKILL)
        return [name[:60] for _, name in there]

    def _round(self) -> int:
        with suppress(OSError, ValueError, IndexError):
            return int(json.loads((self.folder / "metrics.jsonl").read_text().splitlines()[-1])["round"])
        return 0

    def _strike(self, kind: str, driver: subprocess.Popen[Any]) -> None:
        target, number = FAULTS[kind]
        if target == "resize":
            workers = str(self.luck.randint(1, 3))
            resize = [sys.executable, "-m", "pisa_ray", "resize", str(self.folder), workers]
            subprocess.run(resize, capture_output=True, timeout=LIMIT, check=False)
            return
        if target == "group":
            os.killpg(driver.pid, number)
            return
        victims = [driver.pid] if target == "driver" else self._victims(target, driver.pid)
        for pid in victims:
            _send(pid, number)
        if kind == "all frozen for a while":
            time.sleep(self.luck.uniform(2, 15))
            for pid in victims:
                _send(pid, signal.SIGCONT)

    def _victims(self, target: str, driver: int) -> list[int]:
        there = list(processes_of(driver))
        if target == "*":
            return [driver, *(pid for pid, _ in there)]
        found = []
        for part in target.split("+"):
            names = part.rstrip("*").split("|")
            some = [pid for pid, name in there if any(n in name for n in names)]
            found += some if part.endswith("*") else some[: 1 + (self.luck.random() < 0.3 and part == "WorkerActor")]
        return found


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def processes_of(driver: int, known: set[int] | None = None) -> Iterator[tuple[int, str]]:
    """The living descendants of a process, and others that are known to have been, with their command lines."""
    parents, names = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            state = (place / "stat").read_text().rpartition(")")[2].split()
            if state[0] != "Z":
                parents[int(place.name)] = int(state[1])
                names[int(place.name)] = (place / "cmdline").read_text().replace("\0", " ")
    family, size = {driver, *(known or ())}, 0
    while len(family) > size:
        size = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    for pid in family - {driver}:
        if "ray" in names.get(pid, ""):
            yield pid, names[pid]


def settings(method: str, participation: float, workers: int) -> dict[str, Any]:
    """A configuration of a run."""
    return {
        "data": {"dataset": "digits"},
        "partition": {"kind": "labels_per_shard", "shards": 10, "labels": 1},
        "model": {"kind": "mlp", "hidden": [16]},
        **({"algorithm": METHODS[method]} if METHODS[method] else {}),
        "participation": participation,
        "rounds": ROUNDS,
        "batch_size": 16,
        "evaluate_every": 1,
        "checkpoint": {"every": 7},
        "frozen_after": 5,
        "workers": {"min": 1, "max": workers} if workers else 0,
    }


def undisturbed(folder: Path, method: str, participation: float) -> str:
    """The hash of the run in one process."""
    out = folder / f"undisturbed-{method.replace(' ', '-')}-{participation:g}"
    if not (out / "result.json").exists():
        config = out.with_suffix(".json")
        config.write_text(json.dumps(settings(method, participation, 0)))
        command = [sys.executable, "-m", "pisa_ray", "train", str(config), "--out", str(out), "--quiet"]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
    return str(json.loads((out / "result.json").read_text())["weights_sha256"])


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="the number of the first run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where runs and what they printed are kept (default: a new folder)")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="campaign-"))
    out.mkdir(parents=True, exist_ok=True)
    print(f"runs are in {out}", flush=True)
    bad, struck = 0, 0
    for number in range(options.first, options.first + options.runs):
        luck = random.Random(f"{options.seed} {number}")
        method = list(METHODS)[number % len(METHODS)]
        participation, workers = luck.choice([1.0, 0.4]), luck.randint(1, 3)
        kinds = [luck.choice(list(FAULTS)) for _ in range(luck.randint(1, 3))]
        faults = sorted(zip(luck.sample(range(1, ROUNDS - 5), len(kinds)), kinds, strict=True))
        folder = out / f"run-{number:03}"
        config = folder.with_suffix(".json")
        config.write_text(json.dumps(settings(method, participation, workers)))
        run, began = Run(folder, config, list(faults), luck), time.monotonic()
        expected = undisturbed(out, method, participation)
        run.go()
        if not run.wrong and json.loads((folder / "result.json").read_text())["weights_sha256"] != expected:
            run.wrong = "other bits"
        bad, struck = bad + bool(run.wrong), struck + len(faults) - len(run.faults)
        what = ", ".join(f"{round_}: {kind}" for round_, kind in faults)
        print(
            f"{number:3}  {method:12} {participation:3g}  {workers} workers  ended {' '.join(run.ends):14}"
            f" {time.monotonic() - began:5.0f} s  {run.wrong or 'same bits':10}  ({what})",
            flush=True,
        )
    print(f"{options.runs} runs, {struck} faults, {bad} not as they should be (seed {options.seed})")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
