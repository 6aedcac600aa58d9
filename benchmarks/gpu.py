"""What a round costs beyond its gradients on a GPU, for models whose messages are large.

    python benchmarks/gpu.py [--rounds 10] [--repeats 3] [--shards 4] [--only resnet18 gpt] [--cpu]

ResNet-18 on images of 3x32x32 (11.2 million parameters, batch 128) and a GPT of 12 layers of width 768 on 256
characters (85 million, batch 16, bfloat16 autocast), on random data: what is computed does not depend on them. Blocks
of rounds, of one process and of a Ray worker with the GPU, alternate with the same gradients alone, and with the same
gradients each followed by a step of torch's fused Adam, which is what one GPU would do without a consensus.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset
from zero_tuning.character_gpt import GPT, LENGTH, SYMBOLS

from pisa_ray import IID, SISAD, Data
from pisa_ray.actors import RayFleet, RayResources, Staffing, Wanted, ray_session
from pisa_ray.engine.fleet import Fleet, LocalFleet
from pisa_ray.engine.gradient import gradient
from pisa_ray.engine.job import Job
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.engine.worker import Worker
from pisa_ray.models import build_model
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


def images(shards: int) -> Job:
    x = torch.randint(0, 255, (4096, 3, 32, 32), dtype=torch.uint8)
    y = torch.randint(0, 10, (4096,))
    return job(lambda: build_model("resnet18", (3, 32, 32), 10), TensorDataset(x, y), shards, 128, autocast=False)


def characters(shards: int) -> Job:
    x = torch.randint(0, SYMBOLS, (2048, LENGTH))
    return job(lambda: GPT(768, 12, 12), TensorDataset(x, x.roll(-1, 1)), shards, 16, autocast=True)


def job(model: Callable[[], nn.Module], rows: TensorDataset, shards: int, batch: int, *, autocast: bool) -> Job:
    return prepare(
        Config(
            model=model,
            data=Data(train=rows),
            partition=IID(shards),
            algorithm=SISAD(sigma=20.0, rho=380.0),
            batch_size=batch,
            autocast=autocast,
        )
    ).job


class Plain:
    """The gradients of a job alone, in this process."""

    def __init__(self, job: Job, *, gpu: bool) -> None:
        self._worker = Worker(job, gpu=gpu, process_is_ours=False)
        self._worker.host(job.present)
        self._worker.model.module.train()
        parameters = list(self._worker.model.module.parameters())
        self._adam = torch.optim.Adam(parameters, lr=1e-4, fused=gpu)
        self._job, self._count = job, 0

    def seconds(self, rounds: int, *, adam: bool) -> float:
        start = time.perf_counter()
        for _ in range(rounds):
            self._count += 1
            for i in self._job.present:
                gradient(self._worker.model, self._job, *self._worker.batch(i, self._count))
                if adam:
                    self._adam.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start


class Rounds:
    """Rounds of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.done = fleet, 0
        self.parts: list[tuple[float, float, float]] = []

    def seconds(self, rounds: int) -> float:
        start = time.perf_counter()
        for _ in range(rounds):
            self.done += 1
            self.fleet.tend()
            self.fleet.begin(RoundSpec(self.done, 20.0, False))
            report = self.fleet.end()
            self.parts.append((report.gradient_seconds, max(report.worker_seconds), report.consensus.seconds))
        return time.perf_counter() - start


def measure(name: str, job: Job, options: argparse.Namespace) -> None:
    gpu, n = not options.cpu, options.rounds
    plain = Plain(job, gpu=gpu)
    ray_fleet = RayFleet(job, Staffing(Wanted(1, 1)), RayResources(gpus=float(gpu)))
    fleets = {"one process": Rounds(LocalFleet(job, gpu=gpu)), "a Ray worker": Rounds(ray_fleet)}
    size = plain._worker.model.layout.size
    print(f"\n{name}: {size / 1e6:.1f} million parameters, {len(job.present)} shards, batch {job.batch_size}")
    for rounds in fleets.values():
        rounds.seconds(2)
        rounds.parts.clear()
    plain.seconds(2, adam=True)
    blocks = []
    for _ in range(options.repeats):
        alone, adam = plain.seconds(n, adam=False) / n, plain.seconds(n, adam=True) / n
        blocks.append({"gradients": alone, "adam": adam} | {k: f.seconds(n) / n for k, f in fleets.items()})
    middle = {key: statistics.median(block[key] for block in blocks) for key in blocks[0]}
    print(f"  gradients alone {1e3 * middle['gradients']:.1f} ms, with Adam {1e3 * middle['adam']:.1f} ms")
    for key, rounds in fleets.items():
        ratios = [block[key] / block["gradients"] for block in blocks]
        beside = statistics.median(block[key] / block["adam"] for block in blocks)
        gradients, worker, consensus = (float(np.median([part[k] for part in rounds.parts])) for k in range(3))
        rest = middle[key] - worker - consensus
        print(
            f"  {key}: {1e3 * middle[key]:.1f} ms a round, {statistics.median(ratios):.2f} x gradients alone "
            f"(from {min(ratios):.2f} to {max(ratios):.2f}), {beside:.2f} x with Adam; gradients "
            f"{1e3 * gradients:.1f}, local updates and messages {1e3 * (worker - gradients):.1f}, consensus "
            f"{1e3 * consensus:.1f}, calls and copies {1e3 * rest:.1f} ms"
        )
    ray_fleet.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="rounds per block")
    parser.add_argument("--repeats", type=int, default=3, help="blocks of each kind")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=("resnet18", "gpt"), default=["resnet18", "gpt"])
    parser.add_argument("--cpu", action="store_true", help="without a GPU, to try the script")
    options = parser.parse_args()
    if not options.cpu:
        card = torch.cuda.get_device_properties(0)
        print(f"{card.name}, {card.total_memory / 2**30:.0f} GiB, torch {torch.__version__}")
    made = {"resnet18": images, "gpt": characters}
    with ray_session(1, 1, RayResources(gpus=float(not options.cpu))):
        for name in options.only:
            measure(name, made[name](options.shards), options)


if __name__ == "__main__":
    main()
