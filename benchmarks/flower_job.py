"""Flower's FedAvg on the job that flower_fedavg.py wrote to a folder; imports flwr, numpy and torch only.

    python benchmarks/flower_job.py FOLDER

Ten SuperNodes of Flower's simulation runtime, one a shard, train on the batches in FOLDER/shard-I.npz with plain
torch.optim.SGD; Flower's ServerApp runs Flower's FedAvg from FOLDER/initial.npz. Left in FOLDER: flower.npz, the
weights after the last round, and flower.json, versions and which replies each round averaged, in their order.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import flwr
import numpy as np
import ray
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn

MODELS = {
    "lenet": lambda: nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    ),
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
}


def client(folder: Path, job: dict[str, Any]) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        shard, report = int(context.node_config["partition-id"]), int(message.content["config"]["server-round"]) - 1
        batches = np.load(folder / f"shard-{shard}.npz")
        model = MODELS[job["model"]]()
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=job["lr"], momentum=job["momentum"])
        x, y = torch.from_numpy(batches["x"]), torch.from_numpy(batches["y"])
        for count in range(report * job["steps"], (report + 1) * job["steps"]):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[count]), y[count]).backward()
            optimizer.step()
        metrics = MetricRecord({"num-examples": job["rows"][shard], "shard": shard})
        content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
        return Message(content=content, reply_to=message)

    return app


def server(folder: Path, job: dict[str, Any]) -> ServerApp:
    app = ServerApp()
    replies: list[list[int]] = []

    def note(records: list[RecordDict], key: str) -> MetricRecord:
        """Which shards' replies a round averaged, in their order; the weights' average is not touched."""
        replies.append([int(record["metrics"]["shard"]) for record in records])
        return MetricRecord()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        shards = len(job["rows"])
        strategy = FedAvg(
            fraction_evaluate=0.0, min_train_nodes=shards, min_available_nodes=shards, train_metrics_aggr_fn=note
        )
        initial = {name: torch.from_numpy(array) for name, array in np.load(folder / "initial.npz").items()}
        result = strategy.start(grid, ArrayRecord(initial), num_rounds=job["rounds"], train_config=ConfigRecord())
        np.savez(folder / "flower.npz", **{name: array.numpy() for name, array in result.arrays.items()})
        versions = {"flwr": flwr.__version__, "ray": ray.__version__, "torch": torch.__version__}
        (folder / "flower.json").write_text(json.dumps({"versions": versions, "replies": replies}))

    return app


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    job = json.loads((folder / "job.json").read_text())
    run_simulation(
        server_app=server(folder, job),
        client_app=client(folder, job),
        num_supernodes=len(job["rows"]),
        backend_config={
            "init_args": {"address": "local", "num_cpus": 2},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    main()
