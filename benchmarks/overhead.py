"""What a round costs beyond its gradients: the MNIST job on two Ray workers against plain torch, side by side.

    python benchmarks/overhead.py [--rounds 30] [--repeats 5]

Blocks of rounds alternate between the fleet and one plain torch process (this one) that computes the same gradients,
the same batches at w^init, with as many threads as there are workers. Reported: ratios per block, medians, and where
a round's time goes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np
import ray
import torch
from common import mnist_job

from pisa_ray.actors import RayFleet, RayResources, Staffing, Wanted, ray_session
from pisa_ray.engine.gradient import gradient
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.engine.worker import Worker

WORKERS = 2


class Plain:
    """The gradients alone, in this process."""

    def __init__(self, job: Job, threads: int) -> None:
        self._worker = Worker(job, process_is_ours=False)
        self._worker.host(range(len(job.shards)))
        self._worker.model.module.train()
        self._job, self._threads = job, threads

    def seconds(self, first: int, rounds: int) -> float:
        """Time of so many rounds' batches and gradients, one shard after the other."""
        torch.set_num_threads(self._threads)
        start = time.perf_counter()
        for count in range(first, first + rounds):
            for i in range(len(self._job.shards)):
                gradient(self._worker.model, self._job, *self._worker.batch(i, count))
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="rounds per block")
    parser.add_argument("--repeats", type=int, default=5, help="blocks of each kind")
    options = parser.parse_args()
    job, n = mnist_job(), options.rounds
    plain = {threads: Plain(job, threads) for threads in (1, WORKERS)}
    with ray_session(WORKERS, WORKERS, RayResources()):
        fleet = RayFleet(job, Staffing(Wanted(WORKERS, WORKERS)), RayResources())
        done, parts = 0, []

        def rounds(count: int) -> float:
            nonlocal done
            start = time.perf_counter()
            for _ in range(count):
                done += 1
                fleet.tend()
                fleet.begin(RoundSpec(done, 1.0, False))
                report = fleet.end()
                parts.append((report.gradient_seconds, max(report.worker_seconds), report.consensus.seconds))
            return time.perf_counter() - start

        rounds(5)
        for p in plain.values():
            p.seconds(0, 2)
        parts.clear()
        blocks = []
        for repeat in range(options.repeats):
            ours = rounds(n)
            theirs = {threads: p.seconds(repeat * n, n) for threads, p in plain.items()}
            blocks.append((ours, theirs))
            print(
                f"block {repeat}: round {1e3 * ours / n:6.1f} ms   plain torch, {WORKERS} threads "
                f"{1e3 * theirs[WORKERS] / n:6.1f} ms, 1 thread {1e3 * theirs[1] / n:6.1f} ms   "
                f"ratio {ours / theirs[WORKERS]:.2f}"
            )
        latency = statistics.median(_latency() for _ in range(50))
        fleet.close()
    ratio = [ours / theirs[WORKERS] for ours, theirs in blocks]
    total = statistics.median(ours / n for ours, _ in blocks)
    gradients, slowest, consensus = (float(np.median([p[k] for p in parts])) for k in range(3))
    even = gradients / WORKERS
    print(
        f"\nround time / same gradients in one process with {WORKERS} threads: median {statistics.median(ratio):.2f}"
        f" (from {min(ratio):.2f} to {max(ratio):.2f})"
    )
    print(f"a round is {1e3 * total:.1f} ms; of it (medians)")
    for name, seconds in [
        (f"gradients, evenly over {WORKERS} workers", even),
        ("the slower worker's local updates, batches, messages and imbalance", slowest - even),
        ("consensus: adding and updating", consensus),
        ("calls and copies between processes", total - slowest - consensus),
    ]:
        print(f"  {1e3 * seconds:7.1f} ms  {100 * seconds / total:5.1f} %  {name}")
    print(
        f"the limit: gradients alone, {1e3 * even:.1f} ms; one empty actor call and answer takes {1e3 * latency:.2f} ms"
    )
    print("here, and a round has three of them one after the other (step, add, update).")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


@ray.remote(num_cpus=0)
class _Echo:
    def ping(self) -> None:
        pass


_echo: list[object] = []


def _latency() -> float:
    if not _echo:
        _echo.append(_Echo.remote())
        ray.get(_echo[0].ping.remote())  # type: ignore[attr-defined]
    start = time.perf_counter()
    ray.get(_echo[0].ping.remote())  # type: ignore[attr-defined]
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
