"""One of five workers is ten times slower: wall time to a test accuracy, for rounds that wait and rounds that do not.

    python benchmarks/stragglers.py [--data FOLDER] [--repeats 3] [--rounds 150] [--batch 64]

MNIST, one digit per shard, ten shards on five workers of one thread each, LeNet, --batch rows per shard and mini-batch.
In every run the first worker that trains is the slow one: after each mini-batch it sleeps 9 times the CPU time of its
own forward and backward pass (see slow_worker.py). Contestants, in turn, `--repeats` times, in one Ray:

- synchronous: SISA-D, --sigma and rho 9 times that, constant; shards stay where they are (the fleet's Balance is told
  to look at the workers' paces never, by its private period);
- synchronous, shards move: the same as it ships, where a slow worker loses shards (never its last one). The same bits;
- asynchronous: SISA-D, --async-sigma and rho 9 times that, constant, with a quorum and a bound of the age in rounds;
- Ray Train + DDP: TorchTrainer with gloo, DistributedDataParallel, Adam with learning rate 0.006; each worker takes the
  mean over the same mini-batches of its shards as one batch, and w moves by the mean over workers.

All start from the same weights and draw the same mini-batches of every shard. Time begins when the workers are up and
have their rows, and ends with a round or step. There is no evaluation and no diagnostics in it for anybody: the driver
(of DDP: rank 0) copies w after every round, and the copies of every --every-th round are evaluated on all test rows
when the run is over. Snapshots against a loss of workers are in our times, with the rounds that wait for everybody so
that they can be taken; checkpoints on a disk are in nobody's. All but the first contestant go on until they have had
as many sample gradients and as much time as it had.

Printed: medians over the repetitions, with the least and the most; a ratio is that of two runs of one repetition.
"of sync." is the time to the target in units of the synchronous run's; accuracies are those of the first w with as
many sample gradients, and the last w within as much time, as the synchronous run had at its end; "late" is the share of
the slow worker's messages that arrived in a later round than they began in, "oldest" the largest age of a message, in
rounds.
At the end: is the asynchronous accuracy at most 0.3 points below the synchronous one, at equal gradients and time?
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import ray
from common import mnist_data
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from slow_worker import factory, train_ddp

from pisa_ray import SISAD, Asynchronous, LabelSkew
from pisa_ray.actors import RayFleet, RayResources, Staffing, Wanted
from pisa_ray.engine.asynchrony import Step
from pisa_ray.engine.evaluation import evaluate_rows
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare

SHARDS, LEARNING_RATE, TOLERANCE = 10, 0.006, 0.003
SYNC = "synchronous"


@dataclass(frozen=True)
class Point:
    """Where a run was after a round: seconds and sample gradients since it began, and w."""

    round: int
    seconds: float
    samples: int
    w: np.ndarray


@dataclass
class Run:
    """What a contestant did.

    Attributes:
        points: After every round.
        arrivals: Of an asynchronous one: (round, steps whose messages arrived in it).
        slow: Shards that the slow worker had at the end.
    """

    points: list[Point]
    arrivals: list[tuple[int, Sequence[Step]]] = field(default_factory=list)
    slow: list[int] = field(default_factory=list)

    def late(self) -> float | None:
        """Share of the slow worker's messages that arrived after the round they began in."""
        ages = [round_ - version for round_, steps in self.arrivals for i, version in steps if i in self.slow]
        return sum(age > 0 for age in ages) / len(ages) if ages else None

    def oldest(self) -> int | None:
        """The largest age of anybody's message."""
        return max((round_ - version for round_, steps in self.arrivals for _, version in steps), default=None)


@dataclass(frozen=True)
class Goal:
    """When a run ends: when all of it is over."""

    samples: int
    seconds: float = 0.0


def job(folder: Path, factor: float, sigma: float, batch: int, rule: Asynchronous | None = None) -> Job:
    """The job of one run, whose slow worker is found in a folder."""
    return prepare(
        Config(
            model=factory(folder, factor),
            data=mnist_data(test=True),
            partition=LabelSkew(SHARDS, 1),
            algorithm=SISAD(sigma=sigma, rho=9 * sigma),
            batch_size=batch,
            asynchronous=rule,
        )
    ).job


def ours(job: Job, folder: Path, workers: int, goal: Goal, *, move: bool) -> Run:
    """Rounds of a fleet, synchronous or as `job.asynchronous` says.

    Args:
        job: What is trained.
        folder: Where the slow worker leaves its process id.
        workers: How many.
        goal: When to stop.
        move: Whether a slow worker loses shards (an asynchronous fleet never takes them away).
    """
    run = Run([])
    fleet = RayFleet(
        job,
        Staffing(Wanted(workers, workers)),
        RayResources(),
        log=lambda round_, steps: run.arrivals.append((round_, steps)),
    )
    with closing(fleet):
        if not move:
            fleet.assignment.balance._every = sys.maxsize  # rounds between two looks at the paces
        fleet.tend()  # assigns the shards
        start, samples, round_ = time.perf_counter(), 0, 0
        while samples < goal.samples or time.perf_counter() - start < goal.seconds:
            round_ += 1
            fleet.tend()
            fleet.begin(RoundSpec(round_, job.method.sigma, False))
            report = fleet.end()
            seconds = time.perf_counter() - start
            samples += sum(shard.samples for shard in report.shards.values())
            run.points.append(Point(round_, seconds, samples, published(fleet)))
        pid = int((folder / "slow").read_text())
        run.slow = [i for m in fleet.crew.members if m.info and m.info.pid == pid for i in m.shards]
    return run


def published(fleet: RayFleet) -> np.ndarray:
    """A copy of the next round's w, so that the object store can forget the original."""
    return np.array(ray.get(fleet.state.published))


def ddp(job: Job, folder: Path, workers: int, goal: Goal) -> Run:
    """Steps of Ray Train's workers."""
    step = sum(job.batch_rows(i) for i in range(SHARDS))
    config = {
        "job": job,
        "lr": LEARNING_RATE,
        "rounds": -(-goal.samples // step),
        "seconds": goal.seconds,
        "out": str(folder / "ddp.npz"),
    }
    TorchTrainer(
        train_ddp,
        train_loop_config=config,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=workers),
        run_config=RunConfig(name="ddp", storage_path=str(folder)),
    ).fit()
    with np.load(folder / "ddp.npz") as found:
        seconds, kept = found["seconds"], found["w"]
    return Run([Point(k, float(s), k * step, w) for k, (s, w) in enumerate(zip(seconds, kept, strict=True), 1)])


class Judge:
    """Evaluates kept w's on all test rows, in this process.

    Args:
        job: Of any of the runs.
    """

    def __init__(self, job: Job) -> None:
        assert job.test is not None
        self._job, self._model, self._rows = job, job.build_model(), job.test.read(np.arange(job.test.rows))

    def accuracy(self, point: Point) -> float:
        """Test accuracy at a point."""
        self._model.load(point.w)
        sums = evaluate_rows(self._model, self._job, self._rows)
        return sums["accuracy"] / sums["rows"]

    def first(self, points: Sequence[Point], every: int, target: float) -> Point | None:
        """The first point with the target accuracy, of every so many; None: there is none."""
        return next((point for point in points[every - 1 :: every] if self.accuracy(point) >= target), None)


@dataclass(frozen=True)
class Row:
    """A run's part of the table."""

    rounds: float | None
    seconds: float | None
    ratio: float | None
    round_ms: float
    equal_samples: float
    equal_seconds: float
    late: float | None
    oldest: float | None


def row(run: Run, reference: Run, base: Row | None, judge: Judge, options: argparse.Namespace) -> Row:
    """Measure a run against the synchronous one of its repetition, whose own row is not there yet."""
    reached = judge.first(run.points, options.every, options.target)
    end = reference.points[-1]
    equal_samples = next(p for p in run.points if p.samples >= end.samples)
    equal_seconds = [p for p in run.points if p.seconds <= end.seconds][-1:] or run.points[:1]
    seconds = reached.seconds if reached else None
    before = base.seconds if base else seconds
    return Row(
        reached.round if reached else None,
        seconds,
        seconds / before if seconds and before else None,
        1e3 * run.points[-1].seconds / len(run.points),
        judge.accuracy(equal_samples),
        judge.accuracy(equal_seconds[0]),
        run.late(),
        run.oldest(),
    )


def spread(values: Sequence[float | None], form: str) -> str:
    """Median and range of the repetitions; where some did not get there, how many did."""
    found = [value for value in values if value is not None]
    if not found:
        return "-"
    text = form.format(statistics.median(found))
    if len(found) > 1:
        text += f" ({form.format(min(found))} to {form.format(max(found))})"
    return text + (f", {len(found)} of {len(values)} runs" if len(found) < len(values) else "")


#: Headings, names of Row's fields, formats.
COLUMNS = (
    ("rounds", "rounds", "{:.0f}"),
    ("seconds", "seconds", "{:.1f}"),
    ("of sync.", "ratio", "{:.2f}"),
    ("ms a round", "round_ms", "{:.0f}"),
    ("accuracy, equal gradients", "equal_samples", "{:.4f}"),
    ("accuracy, equal time", "equal_seconds", "{:.4f}"),
    ("late", "late", "{:.0%}"),
    ("oldest", "oldest", "{:.0f}"),
)


def table(rows: dict[str, list[Row]], target: float) -> str:
    """All contestants, in Markdown."""
    lines = [f"| to {target:g} | " + " | ".join(title for title, _, _ in COLUMNS) + " |", "|---" * 9 + "|"]
    for name, found in rows.items():
        cells = [spread([getattr(r, key) for r in found], form) for _, key, form in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(rows: dict[str, list[Row]]) -> str:
    """Whether the asynchronous runs end as well as the synchronous ones, by medians."""
    lines = []
    for name in rows:
        if not name.startswith("asynchronous"):
            continue
        for key, what in (("equal_samples", "as many sample gradients"), ("equal_seconds", "as much time")):
            here, there = (statistics.median(getattr(r, key) for r in rows[n]) for n in (name, SYNC))
            good = "yes" if here >= there - TOLERANCE else "NO"
            lines.append(
                f"{name}: at most {100 * TOLERANCE:g} points below synchronous after {what}? {good} "
                f"({100 * (here - there):+.2f} points)"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds mnist/; default: PISA_RAY_DATA, or data/ here")
    parser.add_argument("--workers", type=int, default=5, choices=(2, 5, 10), help="so that all have as many shards")
    parser.add_argument("--slow-factor", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=150, help="of the synchronous run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--target", type=float, default=0.95, help="test accuracy")
    parser.add_argument("--every", type=int, default=4, help="rounds between two w's that are evaluated")
    parser.add_argument("--quorum", type=float, nargs="+", default=[0.8], help="a contestant for each")
    parser.add_argument("--staleness", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64, help="rows per shard and mini-batch")
    parser.add_argument("--sigma", type=float, default=60.0, help="of the synchronous contestants")
    parser.add_argument("--async-sigma", type=float, default=22.0, help="of the asynchronous contestants")
    options = parser.parse_args()
    if options.data is not None:
        os.environ["PISA_RAY_DATA"] = str(options.data.resolve())
    workers, factor, batch = options.workers, options.slow_factor, options.batch
    plain = options.sigma, batch

    def sync(folder: Path, goal: Goal, *, move: bool) -> Run:
        return ours(job(folder, factor, *plain), folder, workers, goal, move=move)

    contestants: dict[str, Callable[[Path, Goal], Run]] = {
        SYNC: lambda folder, goal: sync(folder, goal, move=False),
        f"{SYNC}, shards move": lambda folder, goal: sync(folder, goal, move=True),
    }
    for quorum in options.quorum:
        rule = Asynchronous(quorum=quorum, staleness=options.staleness)
        contestants[f"asynchronous, quorum {quorum:g}, staleness {options.staleness}"] = (
            lambda folder, goal, rule=rule: ours(
                job(folder, factor, options.async_sigma, batch, rule), folder, workers, goal, move=False
            )
        )
    contestants["Ray Train + DDP, Adam"] = lambda folder, goal: ddp(job(folder, factor, *plain), folder, workers, goal)

    print(
        f"{workers} workers on {os.cpu_count()} cores, one {factor:g} times slower; {options.rounds} rounds of {batch} "
        f"rows a shard; SISA-D: sigma {options.sigma:g}, asynchronous {options.async_sigma:g}, rho 9 times that; Adam: "
        f"{LEARNING_RATE:g}",
        flush=True,
    )
    rows: dict[str, list[Row]] = {name: [] for name in contestants}
    # One core more than there are workers, for Ray Train's own processes; what those say is left out.
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"  # of steps that are under way at the end
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    ray.init("local", num_cpus=workers + 1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    with tempfile.TemporaryDirectory() as place:
        judge = Judge(job(Path(place), factor, *plain))
        for repeat in range(options.repeats):
            runs: dict[str, Run] = {}
            for k, (name, contest) in enumerate(contestants.items()):
                folder = Path(place) / f"{repeat}-{k}"
                folder.mkdir()
                goal = Goal(options.rounds * SHARDS * batch, runs[SYNC].points[-1].seconds if runs else 0.0)
                run = runs[name] = contest(folder, goal)
                found = row(run, runs[SYNC], rows[SYNC][repeat] if name != SYNC else None, judge, options)
                rows[name].append(found)
                said = "  ".join(f"{title} {spread([getattr(found, key)], form)}" for title, key, form in COLUMNS)
                had = f"  slow: shards {run.slow}" if run.slow else ""
                print(f"run {repeat + 1} of {options.repeats}, {name}: {said}{had}", flush=True)
            still, moved = (runs[name].points[options.rounds - 1].w for name in list(runs)[:2])
            assert np.array_equal(still, moved), "moving shards changed bits"
    print(f"\n{table(rows, options.target)}\n\n{verdicts(rows)}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
