"""Whether a long run leaves anything behind: object store, driver, consensus and worker memory over many rounds.

    python benchmarks/flat_memory.py [--rounds 1000]

MNIST, LeNet, ten shards, small batches, two Ray workers; read every tenth of the run.
"""

from __future__ import annotations

import argparse
import gc
import os
from pathlib import Path

from common import mnist_job
from ray._private.worker import global_worker

from pisa_ray.actors import RayFleet, RayResources, ray_session


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
    options = parser.parse_args()
    job = mnist_job(batch_size=2)
    with ray_session(2, 2, RayResources()):
        fleet = RayFleet(job, 2, RayResources())
        pids = [worker.pid for worker in fleet.workers()]
        print("round   references   store MiB   driver MiB   workers MiB       open files of the driver")
        for round_ in range(1, options.rounds + 1):
            fleet.begin(round_, 1.0, diagnose=round_ % 20 == 0)
            fleet.end()
            if round_ % (options.rounds // 10) == 0:
                gc.collect()
                workers = " ".join(f"{resident(pid):6.1f}" for pid in pids)
                files = len(list(Path(f"/proc/{os.getpid()}/fd").iterdir()))
                numbers = f"{references():10}   {store():9.1f}   {resident(os.getpid()):10.1f}   {workers}   {files}"
                print(f"{round_:5}   {numbers}", flush=True)
        fleet.close()


if __name__ == "__main__":
    main()
