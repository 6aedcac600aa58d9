"""Whether a long run leaves anything behind: object store, driver and worker memory over many rounds and resizes.

    python benchmarks/flat_memory.py [--rounds 1000] [--resize-every 50]

MNIST, LeNet, ten shards, small batches; one and two Ray workers in turn. Read every tenth of the run.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from pathlib import Path

from common import mnist_job
from ray._private.worker import global_worker

from pisa_ray.actors import RayFleet, RayResources, Staffing, Wanted, ray_session
from pisa_ray.engine.reports import RoundSpec


def resident(pid: int) -> float:
    """Memory of a process in MiB, without what it shares (Linux)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 2**10


def references() -> int:
    """Object references that the driver holds or owns."""
    return len(global_worker.core_worker.get_all_reference_counts())


def store() -> float:
    """Pages of shared memory in use on this machine, in MiB: the object store's touched part, and others'."""
    shm = os.statvfs("/dev/shm")  # noqa: S108
    return (shm.f_blocks - shm.f_bfree) * shm.f_frsize / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--resize-every", type=int, default=50, help="0: never")
    options = parser.parse_args()
    job, told = mnist_job(batch_size=2), []
    with ray_session(2, 2, RayResources()):
        fleet = RayFleet(
            job, Staffing(Wanted(1, 2, look_every=0.1)), RayResources(), lambda kind, **_: told.append(kind)
        )
        print(
            "round   references   store MiB   driver MiB   threads   open files   resizes   shards moved   workers MiB"
        )
        for round_ in range(1, options.rounds + 1):
            if options.resize_every and round_ % options.resize_every == 0:
                size = 1 + round_ // options.resize_every % 2
                fleet.resize(size)
                until = time.monotonic() + 60
                while (
                    len(fleet.workers()) != size and time.monotonic() < until
                ):  # a process takes longer than 50 rounds
                    fleet.tend()
                    time.sleep(0.05)
            fleet.tend()
            fleet.begin(RoundSpec(round_, 1.0, round_ % 20 == 0))
            fleet.end()
            if round_ % (options.rounds // 10) == 0:
                gc.collect()
                workers = " ".join(f"{resident(worker.pid):6.1f}" for worker in fleet.workers())
                files = len(list(Path(f"/proc/{os.getpid()}/fd").iterdir()))
                threads = len(list(Path(f"/proc/{os.getpid()}/task").iterdir()))
                numbers = (
                    f"{references():10}   {store():9.1f}   {resident(os.getpid()):10.1f}   {threads:7}   {files:10}"
                )
                print(
                    f"{round_:5}   {numbers}   {told.count('resized'):7}   {told.count('shard_moved'):12}   {workers}",
                    flush=True,
                )
        fleet.close()


if __name__ == "__main__":
    main()
