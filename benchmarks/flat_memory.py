"""Whether a long run leaves anything behind: object store, driver, consensus and worker memory over many rounds.

    python benchmarks/flat_memory.py [--rounds 1000]

MNIST, LeNet, ten shards, small batches, two Ray workers; read every tenth of the run.
"""

from __future__ import annotations

import argparse
import gc
import os
from pathlib import Path

import psutil
import ray
from common import mnist_job
from ray._private.internal_api import memory_summary

from pisa_ray.actors import RayFleet, RayResources, ray_session


def resident(pid: int) -> float:
    """Memory of a process in MiB, without what it shares."""
    return psutil.Process(pid).memory_full_info().uss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    options = parser.parse_args()
    job = mnist_job(batch_size=2)
    with ray_session(2, 2, RayResources()):
        fleet = RayFleet(job, 2, RayResources())
        pids = [worker.pid for worker in fleet.workers()]
        print("round   object store           driver MiB   workers MiB      open files of the driver")
        for round_ in range(1, options.rounds + 1):
            fleet.begin(round_, 1.0, diagnose=round_ % 20 == 0)
            fleet.end()
            if round_ % (options.rounds // 10) == 0:
                gc.collect()
                address = ray.get_runtime_context().gcs_address
                summary = memory_summary(address, stats_only=True).splitlines()
                store = next(
                    (line for line in summary if "objects consumed" in line or "Plasma memory usage" in line), ""
                )
                workers = " ".join(f"{resident(pid):6.1f}" for pid in pids)
                files = len(list(Path(f"/proc/{os.getpid()}/fd").iterdir()))
                print(
                    f"{round_:5}   {store.strip()[:60]:60} {resident(os.getpid()):8.1f}   {workers}   {files}",
                    flush=True,
                )
        fleet.close()


if __name__ == "__main__":
    main()
