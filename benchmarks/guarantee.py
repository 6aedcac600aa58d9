"""What it costs to be able to lose a worker: snapshots of the shards' states, and the w's kept for replay.

    python benchmarks/guarantee.py [--sizes 44k 10m 100m] [--rounds 60]

A multi-layer perceptron on digits, SISA; ten shards at 44 thousand parameters, two at 10 and 100 million; two Ray
workers. Printed: how much longer a round with a snapshot takes than one without (medians), what that makes of a round
at the period that the run chose for itself, and the ratio of rounds without a snapshot in blocks where w's are kept to
those in blocks where none are; blocks take turns in one run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import numpy as np
import ray

from pisa_ray import SISA, Data, Indices
from pisa_ray.actors import RayFleet, RayResources, Staffing, Wanted, ray_session
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.models import mlp
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare

#: Hidden layers, shards and batch size by name.
SIZES = {"44k": ((256, 100), 10, 64), "10m": ((3130, 3130), 2, 64), "100m": ((9980, 9980), 2, 64)}


def measure(name: str, rounds: int) -> None:
    hidden, shards, batch = SIZES[name]
    cuts = np.array_split(np.arange(1400), shards)
    job = prepare(
        Config(
            model=partial(mlp, (64,), 10, hidden=list(hidden)),  # type: ignore[arg-type]
            data=Data(train="digits"),
            partition=Indices(tuple(tuple(int(i) for i in cut) for cut in cuts)),
            algorithm=SISA(sigma=1.0, rho=200.0),
            batch_size=batch,
        )
    ).job
    fleet = RayFleet(job, Staffing(Wanted(2, 2)), RayResources())
    snapshots, due = fleet.snapshots, fleet.snapshots.due
    taken: list[int] = []
    take = fleet.take_snapshot
    fleet.take_snapshot = lambda: (taken.append(1), take())[1]  # type: ignore[method-assign]
    block, round_ = max(rounds // 6, 5), 0
    plain: dict[bool, list[float]] = {True: [], False: []}
    with_one: list[float] = []
    periods: list[int] = []
    for turn in range(9):
        on = turn % 2 == 0  # the first block warms up and finds the period
        snapshots.due = due if on else lambda _: False  # type: ignore[method-assign]
        for _ in range(2 * block if on else block):
            round_ += 1
            if not on:
                snapshots.window.clear()
            taken.clear()
            start = time.perf_counter()
            fleet.tend()
            fleet.begin(RoundSpec(round_, 1.0, False))
            fleet.end()
            seconds = time.perf_counter() - start
            if turn:
                (with_one if taken else plain[on]).append(seconds)
                periods.append(snapshots.period)
    size = len(ray.get(fleet.state.published)) * 4 / 2**20
    usual, period = statistics.median(plain[True]), statistics.median(periods)
    extra = statistics.median(with_one) - usual
    print(
        f"{name:>5}: w {size:6.1f} MiB, {shards} shards; round {usual * 1e3:7.1f} ms; with a snapshot "
        f"{extra * 1e3:6.1f} ms longer ({len(with_one)} of them), one every {period:g} rounds: "
        f"{extra / period / usual:.2%} of the time\n"
        f"       rounds with w's kept / without: {usual / statistics.median(plain[False]):.3f}; at most "
        f"{snapshots.longest} w's are kept, and {2 * shards * size:.0f} MiB of states",
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
