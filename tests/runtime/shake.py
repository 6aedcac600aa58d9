"""A run on several nodes under seeded faults, beside the same run undisturbed: `python tests/runtime/shake.py --help`.

This process owns the cluster (raylets of this machine) and does what a run cannot do to itself: it kills, drains and
adds nodes, and starts the run again when its driver was killed. The run is a process of its own. Prints a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pisa_ray import NSISA, SISA, SISAD, Data, Geometric, LabelSkew, PisaTrainer
from pisa_ray.models import build_model
from pisa_ray.trainer.settings import Scaling

HERE = Path(__file__).resolve()

#: Nodes are noticed to be dead in about two seconds instead of fifteen.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_AUTH_MODE": "disabled",
}

METHODS = {
    "sisa": SISA(sigma=1.0, rho=200.0),
    "sisa_d": SISAD(sigma=60.0, rho=540.0),
    "nsisa": NSISA(sigma=20.0, rho=50.0, rest=SISAD(sigma=60.0, rho=540.0), precision="float32"),
}


def normalised() -> nn.Module:
    """A small network with BatchNorm and dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(256, 10),
    )


def trainer(settings: dict[str, Any], path: Path, workers: Scaling | int, seed: int = 0) -> PisaTrainer:
    data = Path(settings["data"])
    return PisaTrainer(
        model=normalised if settings["model"] == "normalised" else partial(build_model, "lenet", (1, 28, 28), 10),
        data=Data(train=str(data / "train.parquet"), test=str(data / "test.parquet"), input="image", label="label"),
        partition=LabelSkew(10, 1),
        algorithm=METHODS[settings["method"]],
        sigma_schedule=Geometric(0.95, 10),
        rounds=settings["rounds"],
        evaluate_every=50,
        checkpoint_every=20,
        scaling_config=workers,
        run_config=path,
        seed=seed,
        resume=path.exists(),
        progress=False,
    )


def child(settings: dict[str, Any], out: Path) -> None:
    """The run under faults; asks for those that it cannot do by a line on stdout, and waits for one on stdin."""
    from chaos import Chaos, Fault, shaken

    def outside(fault: Fault, fleet: Any) -> dict[str, Any]:
        nodes = [m.node for m in fleet.crew.members if m.shards]
        print(json.dumps({"kind": fault.kind, "luck": fault.luck, "nodes": nodes}), flush=True)
        if fault.kind == "driver kill":
            os.kill(os.getpid(), signal.SIGKILL)
        assert json.loads(sys.stdin.readline())["done"] == fault.kind
        return {}

    faults = [Fault(**fault) for fault in settings["faults"]]
    scaling = Scaling(1, 4, patience=120.0, frozen_after=3.0, look_every=0.2)
    with shaken(Chaos(faults, out / "faults.jsonl", outside)):
        trainer(settings, out / "shaken", scaling).fit()


class Nodes:
    """A head and other raylets on this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        self.head = self.cluster.head_node.node_id
        for _ in range(2):
            self.add()

    def add(self) -> None:
        self.cluster.add_node(num_cpus=2)

    def act(self, request: dict[str, Any]) -> None:
        kind, others = request["kind"], sorted(self.cluster.worker_nodes, key=lambda node: node.node_id)
        if kind == "join" or not others:
            self.add()
            return
        busy = [node for node in others if node.node_id in request["nodes"]] or others
        victim = busy[request["luck"] % len(busy)]
        if kind == "node kill":
            self.cluster.remove_node(victim, allow_graceful=False)
        elif kind == "drain":
            self._drain(victim.node_id)
            threading.Thread(target=self._gone, args=(victim,), daemon=True).start()
        if len(others) == 1:
            self.add()

    def _drain(self, node: str) -> None:
        from ray._raylet import GcsClient

        deadline = int(time.time() * 1000) + 5000
        accepted, why = GcsClient(address=self.cluster.address).drain_node(node, 2, "a test", deadline)
        assert accepted, why

    def _gone(self, victim: Any) -> None:
        time.sleep(5)  # what was announced happens
        if victim in self.cluster.worker_nodes:
            self.cluster.remove_node(victim, allow_graceful=False)


def shake(settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """Both runs; what happened, and their hashes."""
    from chaos import KINDS, OUTSIDE, Chaos, schedule
    from runs import states

    faults = schedule(settings["seed"], settings["rounds"], settings["count"], (*KINDS, *OUTSIDE))
    if "driver kill" not in {fault.kind for fault in faults}:
        assert settings["count"] < len(KINDS) + len(OUTSIDE)
    settings = settings | {"faults": [vars(fault) for fault in faults]}
    print("faults:", json.dumps(settings["faults"]), file=sys.stderr)
    began = time.monotonic()
    undisturbed = trainer(settings, out / "undisturbed", 0).fit()
    alone = time.monotonic() - began
    nodes, drivers = Nodes(), 0
    environment = os.environ | HEALTH | {"RAY_ADDRESS": nodes.cluster.address}
    while True:
        drivers += 1
        process = subprocess.Popen(
            [sys.executable, str(HERE), "--child", json.dumps(settings), "--out", str(out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for line in process.stdout:
            if not line.startswith('{"kind"'):
                print(line, end="", file=sys.stderr)
                continue
            request = json.loads(line)
            if request["kind"] != "driver kill":
                nodes.act(request)
                process.stdin.write(json.dumps({"done": request["kind"]}) + "\n")
                process.stdin.flush()
        if process.wait(timeout=60) != -signal.SIGKILL:
            break
    nodes.cluster.shutdown()
    assert process.returncode == 0, f"the run under faults ended with status {process.returncode}"
    result = trainer(settings, out / "shaken", 0).fit()  # at its end already: only reads it
    record = Chaos([], out / "faults.jsonl").happened()
    return {
        "settings": settings,
        "happened": record,
        "drivers": drivers,
        "undisturbed": undisturbed.weights_sha256,
        "shaken": result.weights_sha256,
        "same_states": states(undisturbed) == states(result),
        "test_accuracy": result.metrics.get("test_accuracy"),
        "seconds": {"undisturbed": alone, "both": time.monotonic() - began},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="sisa")
    parser.add_argument("--model", choices=("lenet", "normalised"), default="lenet")
    parser.add_argument("--data", default=str(HERE.parents[2] / "data" / "mnist"))
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--count", type=int, default=14)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--child", type=json.loads, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.update(HEALTH)
    if options.child:
        child(options.child, options.out)
    else:
        folder = options.out or Path(tempfile.mkdtemp())
        keys = ("method", "model", "data", "rounds", "count", "seed")
        print(json.dumps(shake({key: getattr(options, key) for key in keys}, folder)))
