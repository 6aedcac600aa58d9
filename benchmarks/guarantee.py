"""What it costs to be able to lose a worker: snapshots of the shards' states, and the w's kept for replay.

    python benchmarks/guarantee.py [--sizes 44k 10m 100m] [--rounds 60]

A multi-layer perceptron on digits, SISA; ten shards at 44 thousand parameters, two at 10 and 100 million; two Ray
workers. Blocks of rounds with and without snapshots take turns in one run. Two figures: the ratio of the blocks' mean
rounds, and the share that follows from what a snapshot was measured to cost and how often one is taken (less noisy).
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import numpy as np
import ray

from pisa_ray import SISA, Data, Indices
from pisa_ray.actors import RayFleet, RayResources, Wanted, ray_session
from pisa_ray.models import mlp
from pisa_ray.trainer.prepare import prepare

#: Hidden layers, shards and batch size by name.
SIZES = {"44k": ((256, 100), 10, 64), "10m": ((3130, 3130), 2, 64), "100m": ((9980, 9980), 2, 64)}


def measure(name: str, rounds: int) -> None:
    hidden, shards, batch = SIZES[name]
    cuts = np.array_split(np.arange(1400), shards)
    job = prepare(
        model=partial(mlp, (64,), 10, hidden=list(hidden)),  # type: ignore[arg-type]
        data=Data(train="digits"),
        partition=Indices(tuple(tuple(int(i) for i in cut) for cut in cuts)),
        algorithm=SISA(sigma=1.0, rho=200.0),
        batch_size=batch,
    ).job
    fleet = RayFleet(job, Wanted(2, 2), RayResources())
    snapshots, due = fleet._snapshots, fleet._snapshots.due
    block = max(rounds // 6, 5)
    times: dict[bool, list[float]] = {True: [], False: []}
    costs, taken, round_ = [], 0, 0
    for turn in range(7):
        on = turn % 2 == 0  # the first block warms up and finds the period
        snapshots.due = due if on else lambda _: False  # type: ignore[method-assign]
        for _ in range(block if turn else max(block, 15)):
            round_ += 1
            if not on:
                snapshots.window.clear()
            before, start = snapshots.round, time.perf_counter()
            fleet.tend()
            fleet.begin(round_, 1.0, diagnose=False)
            fleet.end()
            taken += snapshots.round != before
            if turn:
                times[on].append(time.perf_counter() - start)
        if on and snapshots.cost:
            costs.append(snapshots.cost)
    size = len(ray.get(fleet._published)) * 4 / 2**20
    with_, without = (statistics.mean(times[on]) for on in (True, False))
    middle = statistics.median(times[False])
    cost = statistics.median(costs)
    print(
        f"{name:>5}: w {size:7.1f} MiB, {shards} shards; round {middle * 1e3:7.1f} ms; a snapshot costs "
        f"{cost * 1e3:6.1f} ms, taken every {snapshots.period} rounds: {cost / snapshots.period / middle:.2%} of round"
        f"; mean round with / without {with_ / without:.3f}; "
        f"kept: {len(snapshots.window)} w's of at most {snapshots.longest}, and "
        f"{2 * shards * size:.0f} MiB of states",
        flush=True,
    )
    fleet.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    for name in options.sizes:
        with ray_session(2, 2, RayResources()):
            measure(name, options.rounds if name != "100m" else 30)


if __name__ == "__main__":
    main()
