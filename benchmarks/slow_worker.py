"""A network that one process of a run is slow at, and the plain data parallel training that it is tried with, too.

Both are here and not in stragglers.py so that other processes can import them.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from common import lenet_28
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector

from pisa_ray.data import BatchStream
from pisa_ray.engine.numerics import set_numerics


class SlowWorker(nn.Module):
    """Leaves a network as it is, but in one process every mini-batch takes `factor` times as long.

    The first process that trains claims the slowness by creating a file that was not there; the driver never does. It
    measures its thread's CPU time from the beginning of a forward pass until the last parameter has got its gradient,
    and sleeps (factor - 1) times as long before backward() returns. CPU time does not grow where other processes take
    the core away. A second gradient of the same batch is slowed like the first, an evaluation is not.

    Args:
        net: The network; each of its parameters gets a gradient from every backward pass.
        flag: The file; then it holds the process id.
        factor: At least 1.
        driver: Id of the process that never claims.
    """

    def __init__(self, net: nn.Module, flag: Path, factor: float, driver: int) -> None:
        super().__init__()
        self.net, self._flag, self._factor, self._driver = net, flag, factor, driver
        self._is_slow: bool | None = None
        self._since, self._missing = 0.0, 0
        parameters = [p for p in net.parameters() if p.requires_grad]
        self._parameters_count = len(parameters)
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._accumulated)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the network."""
        if self.training and torch.is_grad_enabled() and self._claimed():
            self._since, self._missing = time.thread_time(), self._parameters_count
        output: torch.Tensor = self.net(x)
        return output

    def _claimed(self) -> bool:
        if self._is_slow is None:
            self._is_slow = os.getpid() != self._driver and self._claim()
        return self._is_slow

    def _claim(self) -> bool:
        try:
            handle = os.open(self._flag, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        os.write(handle, str(os.getpid()).encode())
        os.close(handle)
        return True

    def _accumulated(self, parameter: torch.Tensor) -> None:
        if not self._missing:
            return
        self._missing -= 1
        if not self._missing:
            time.sleep((self._factor - 1) * (time.thread_time() - self._since))


def slow_lenet(flag: Path, factor: float, driver: int) -> nn.Module:
    """LeNet, slow in one process."""
    return SlowWorker(lenet_28(), flag, factor, driver)  # type: ignore[arg-type]


def train_ddp(config: dict[str, Any]) -> None:
    """A Ray Train worker: DistributedDataParallel with Adam on a run of neighbouring shards; rank 0 keeps every w.

    Args:
        config: "job"; "lr"; "rounds" and "seconds", which must both be over at the end; "out", the file that rank 0
            writes: seconds, [steps], and w, [steps, p], after each step.
    """
    job = config["job"]
    set_numerics(job.threads)
    rank = dist.get_rank()
    mine = [int(i) for i in np.array_split(np.arange(len(job.shards)), dist.get_world_size())[rank]]
    rows = {i: job.train.read(job.shards[i]) for i in mine}
    streams = {i: BatchStream(job.seed, i, len(job.shards[i]), job.batch_size) for i in mine}
    torch.manual_seed(job.seed)
    model = DistributedDataParallel(job.model())
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    seconds: list[float] = []
    kept: list[np.ndarray] = []
    step, more = 0, torch.ones(1)
    dist.barrier()
    start = time.perf_counter()
    while more:
        x, y = map(torch.cat, zip(*(rows[i].batch(streams[i].positions(step)) for i in mine), strict=True))
        optimizer.zero_grad()
        functional.cross_entropy(model(job.preprocess(x, training=True)), y).backward()
        optimizer.step()
        step += 1
        if rank == 0:
            seconds.append(time.perf_counter() - start)
            kept.append(parameters_to_vector(model.parameters()).detach().numpy().copy())
        if step >= config["rounds"] and step % 5 == 0:  # rank 0 decides for all
            more.fill_(time.perf_counter() - start < config["seconds"])
            dist.broadcast(more, src=0)
    if rank == 0:
        np.savez(config["out"], seconds=np.array(seconds), w=np.stack(kept))


def factory(folder: Path, factor: float) -> partial[nn.Module]:
    """Makes `slow_lenet` for one run of this process, the driver; the flag is folder/slow."""
    return partial(slow_lenet, folder / "slow", factor, os.getpid())
