"""Plain data parallel training of the job in recovery.py, to be run by torchrun; rank 1 kills itself once.

torchrun --nproc-per-node=2 --max-restarts=3 benchmarks/torchrun_job.py OUT_DIR KILL_ROUND CHECKPOINT_EVERY
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from common import lenet_28, mnist_job
from safetensors.torch import load_file, save_file
from torch.nn import functional

from pisa_ray.data import BatchStream

out, when, every = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


def log(what: str, round_: int) -> None:
    with (out / "log.jsonl").open("a") as file:
        file.write(json.dumps({"what": what, "round": round_, "time": time.time()}) + "\n")


torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
job = mnist_job()
mine = range(rank, len(job.shards), 2)
rows = {i: job.train.read(job.shards[i]) for i in mine}
streams = {i: BatchStream(job.seed, i, len(job.shards[i]), job.batch_size) for i in mine}
torch.manual_seed(0)
model: torch.nn.Module = lenet_28()  # type: ignore[assignment]
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
done = 0
if saved := sorted(out.glob("*.safetensors")):
    done = int(saved[-1].stem)
    model.load_state_dict(load_file(saved[-1]))
if rank == 0:
    log("resumed", done)
for round_ in range(done + 1, when + 1):
    if round_ == when and rank == 1 and not (out / "killed").exists():
        time.sleep(0.02)
        (out / "killed").touch()
        log("killed", round_)
        os.kill(os.getpid(), signal.SIGKILL)
    optimizer.zero_grad()
    for i in mine:
        x, y = rows[i].batch(np.asarray(streams[i].positions(round_ - 1)))
        (functional.cross_entropy(model(job.preprocess(x, training=True)), y) * job.alpha[i]).backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
    optimizer.step()
    if rank == 0:
        log("finished", round_)
        if round_ % every == 0:
            part = out / f"{round_:06d}.part"
            save_file(model.state_dict(), part)
            part.rename(out / f"{round_:06d}.safetensors")
dist.destroy_process_group()
