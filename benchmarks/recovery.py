"""How long a killed worker holds up a run: ours beside a restart from the last checkpoint, on the same job.

    python benchmarks/recovery.py [--kills 5] [--torchrun]

MNIST, LeNet, ten shards, batches of 64, two workers, a checkpoint every 10 rounds; in a round chosen by a seed a worker
is killed right after its round was submitted. Ours: from the kill until that round is finished, in parts. Restart: all
processes are ended and started again, the last checkpoint is loaded, and the rounds since are done again, from the kill
until the same round is finished; once with our own processes, once (--torchrun) as torchrun does it with plain data
parallel training of the same network, batches and checkpoint period.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from common import mnist_job

from pisa_ray.actors import RayFleet, RayResources, Staffing, Wanted, ray_session
from pisa_ray.engine.files import Folder
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import RoundSpec

EVERY, ROUNDS = 10, 30


def kill(fleet: RayFleet, dice: random.Random) -> float:
    victim = dice.choice([m for m in fleet.crew.members if m.shards])
    time.sleep(0.02)  # into the round
    os.kill(victim.info.pid, signal.SIGKILL)
    return time.time()


def replay(job: Job, seed: int) -> dict[str, float]:
    """One kill, ours: the parts of the time until the round is finished."""
    dice, told = random.Random(seed), []
    when = dice.randrange(20, ROUNDS)

    def tell(kind: str, **fields: Any) -> None:
        told.append((kind, time.time(), fields))

    with closing(RayFleet(job, Staffing(Wanted(1, 2)), RayResources(), tell)) as fleet:
        ordinary = []
        for round_ in range(1, when + 1):
            fleet.tend()
            start = time.time()
            fleet.begin(RoundSpec(round_, 1.0, False))
            killed = kill(fleet, dice) if round_ == when else 0.0
            report = fleet.end()
            ordinary.append(time.time() - start)
        finished = time.time()
        (died,) = (t for kind, t, _ in told if kind == "worker_died")
        recovered = [fields for kind, _, fields in told if kind == "recovered"]
        load, again = (max(f[name] for f in recovered) for name in ("load_seconds", "replay_seconds"))
        usual = statistics.median(ordinary[5:-1])
        back = time.time()
        while len(fleet.crew.members) < 2 and time.time() - back < 120:
            fleet.tend()
            fleet.begin(RoundSpec(round_ := round_ + 1, 1.0, False))
            fleet.end()
        return {
            "detection": died - killed,
            "load rows and states": load,
            "replay": again,
            "rounds replayed": float(max(f["rounds"] for f in recovered)),
            "kill to round finished": finished - killed,
            "beyond an ordinary round": finished - killed - usual,
            "others idle": finished - killed - max(report.worker_seconds),
            "back at two workers": time.time() - killed,
            "rounds lost": 0.0,
        }


def restart(job: Job, seed: int) -> dict[str, float]:
    """One kill, all else ended too: from the kill until the same round is finished by new processes."""
    dice = random.Random(seed)
    when, saved, killed = dice.randrange(20, ROUNDS), (0, None), 0.0
    folder = Folder.of(tempfile.mkdtemp())
    for attempt in range(2):
        with closing(RayFleet(job, Staffing(Wanted(2, 2)), RayResources())) as fleet:
            done = saved[0] if attempt else 0
            if attempt:
                started = time.time()
                fleet.restore(folder / f"r{saved[0]}", saved[1], saved[0])
            for round_ in range(done + 1, when + 1):
                fleet.tend()
                fleet.begin(RoundSpec(round_, 1.0, False))
                if round_ == when and not attempt:
                    killed = kill(fleet, dice)
                    break
                fleet.end()
                if round_ % EVERY == 0:
                    into = folder / f"r{round_}"
                    into.create()
                    saved = round_, fleet.save(into).files()
    return {
        "processes back": started - killed,
        "kill to round finished": time.time() - killed,
        "rounds lost": float(when - 1 - done),
    }


def torchrun(seed: int) -> dict[str, float] | None:
    """One kill under torchrun; None: the new processes had not found each other after a minute."""
    out = Path(tempfile.mkdtemp())
    script = Path(__file__).with_name("torchrun_job.py")
    when = random.Random(seed).randrange(20, ROUNDS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    command += ["--monitor-interval=0.1", str(script), str(out), str(when), str(EVERY)]
    try:
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=90)
    except subprocess.TimeoutExpired:
        return None
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    killed = next(line["time"] for line in lines if line["what"] == "killed")
    finished = next(line["time"] for line in lines if line["what"] == "finished" and line["round"] == when)
    resumed = next(line for line in lines if line["what"] == "resumed" and line["time"] > killed)
    return {
        "processes back": resumed["time"] - killed,
        "kill to round finished": finished - killed,
        "rounds lost": float(when - 1 - resumed["round"]),
    }


def show(title: str, runs: list[dict[str, float]]) -> None:
    print(title)
    for name in runs[0]:
        values = [run[name] for run in runs]
        print(f"  {name:26} median {statistics.median(values):7.2f}   from {min(values):7.2f} to {max(values):7.2f}")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--torchrun", action="store_true", help="also")
    parser.add_argument("--only-torchrun", action="store_true")
    options = parser.parse_args()
    job, seeds = mnist_job(), range(options.kills)
    if not options.only_torchrun:
        with ray_session(2, 2, RayResources()):
            ours, theirs = [], []
            for seed in seeds:  # in turn, so that both see the same machine
                ours.append(replay(job, seed))
                theirs.append(restart(job, seed))
        show("a worker killed: its shards are rebuilt on the other (seconds)", ours)
        show("the same kill, all processes restarted from the last checkpoint (seconds)", theirs)
    if options.torchrun or options.only_torchrun:
        runs = [torchrun(seed) for seed in seeds]
        show("the same kill under torchrun (seconds)", [run for run in runs if run is not None])
        print(f"  torchrun did not come back within 90 s in {runs.count(None)} of {len(runs)} runs")


if __name__ == "__main__":
    main()
