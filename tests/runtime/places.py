"""A run whose shards are pinned to two places, one of which goes away and comes back: `python places.py OUT [MODE]`.

Nodes labelled site=bonn and site=lyon host them; the head, where the driver is, has the one that may be anywhere.
Bonn's node is killed when round 12 is about to begin, and another one is added ten rounds later; then the run ends, and
goes on for some more rounds with Bonn away from the start. Every item that is read leaves its shard's number in a file
named by the process.
MODE: synchronous, participation or asynchronous. Prints a JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from runs import events, plain_net
from shake import HEALTH
from torch.utils.data import Dataset, TensorDataset

from pisa_ray import SISAD, Asynchronous, Constant, Data, Indices, PisaTrainer, Scaling
from pisa_ray.data.digits import digits_table
from pisa_ray.schedulers import SigmaSchedule

SHARDS, EACH = 6, 40
PLACES = ["bonn", "lyon", "bonn", "lyon", "lyon", None]
KILLED, ALONE, ROUNDS, MORE = 12, 10, 300, 10
MODES: dict[str, dict[str, Any]] = {
    "synchronous": {},
    "participation": {"participation": 0.5},
    "asynchronous": {"asynchronous": Asynchronous(quorum=0.5, staleness=5)},
}


class Watched(Dataset):
    """The first digits, in the order of their shards; who reads one of a shard leaves a mark."""

    def __init__(self, folder: Path) -> None:
        table = digits_table("digits").slice(0, SHARDS * EACH)
        self.x = torch.tensor(table["features"].to_pylist(), dtype=torch.float32) / 16
        self.targets = torch.tensor(table["label"].to_pylist())
        self.folder = folder

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        (self.folder / f"{os.getpid()}-{k // EACH}").touch()
        return self.x[k], self.targets[k]


class Director(SigmaSchedule):
    """A constant sigma whose asking is the clock of what happens to the nodes."""

    def __init__(self, out: Path, act: dict[int, Any]) -> None:
        self.out, self.act = out, act

    def grow(self, sigma: float, round_: int, memory: Any = None) -> float:
        for action in self.act.pop(round_, ()):
            action()
        if not self.act and not events(self.out, "shards_back"):
            time.sleep(0.1)  # a process is being started meanwhile
        return Constant().grow(sigma, round_)


def trainer(out: Path, mode: str, rounds: int, schedule: Any, data: Data) -> PisaTrainer:
    return PisaTrainer(
        model=plain_net,
        data=data,
        partition=Indices([list(range(i * EACH, (i + 1) * EACH)) for i in range(SHARDS)]),
        algorithm=SISAD(sigma=10.0, rho=90.0),
        pin_to={"site": PLACES},
        rounds=rounds,
        batch_size=16,
        sigma_schedule=schedule,
        evaluate_every=1,
        checkpoint_every=20,
        scaling_config=Scaling(2, 3, look_every=0.2, patience=60.0),
        run_config=out,
        resume=out.exists(),
        progress=False,
        **MODES[mode],
    )


def main(out: Path, mode: str) -> dict[str, Any]:
    os.environ.update(HEALTH)
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    bonn = cluster.add_node(num_cpus=1, labels={"site": "bonn"})
    cluster.add_node(num_cpus=1, labels={"site": "lyon"})
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    nodes = {"bonn": [bonn]}

    def kill() -> None:
        cluster.remove_node(nodes["bonn"][-1], allow_graceful=False)

    def add() -> None:
        nodes["bonn"].append(cluster.add_node(num_cpus=1, labels={"site": "bonn"}))

    marks = out.parent / "marks"
    marks.mkdir()
    watched = Watched(marks)
    data = Data(train=watched, test=TensorDataset(watched.x, watched.targets))
    director = Director(out, {KILLED: [kill], KILLED + ALONE: [add]})
    first = trainer(out, mode, ROUNDS, director, data).fit()
    kill()
    time.sleep(3)  # until Ray has noticed
    second = trainer(out, mode, ROUNDS + MORE, Director(out, {}), data).fit()
    pids = {event["pid"]: event["ray_node"] for event in events(out, "worker_started")}
    sites = {node.node_id: "bonn" for node in nodes["bonn"]}
    for node in cluster.worker_nodes:
        sites.setdefault(node.node_id, "lyon")
    read = sorted(
        (sites.get(pids.get(int(pid)), "head" if int(pid) in pids else "driver"), int(shard))
        for pid, shard in (mark.name.split("-") for mark in marks.iterdir())
    )
    ray.shutdown()
    cluster.shutdown()
    return {
        "read": read,
        "rows": [[row["round"], row["shards_reporting"]] for row in second.history],
        "told": [[kind, e["round"], e["shards"]] for kind in ("shards_away", "shards_back") for e in events(out, kind)],
        "accuracy": [first.metrics["test_accuracy"], second.metrics["test_accuracy"]],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
