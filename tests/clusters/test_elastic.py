"""Runs on a cluster that Ray's autoscaler grows and shrinks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_cluster import possible
from local import pisa_ray

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.ray,
    pytest.mark.skipif(not possible(), reason="this machine does not let us make namespaces (unshare)"),
]
SCRIPT = Path(__file__).with_name("fake_cluster.py")


def on_fake_cluster(*command: str, cwd: Path, seconds: float = 240) -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--", *command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        out, _ = process.communicate(timeout=30)
        pytest.fail(f"not done after {seconds} s: {out[-3000:]}")
    return process.returncode, out


PLAIN = """
import time, ray
from ray.autoscaler.sdk import request_resources

@ray.remote(num_cpus=1)
class Actor:
    def node(self):
        return ray.get_runtime_context().get_node_id()

ray.init(logging_level="ERROR", log_to_driver=False)
print("at first", sum(n["Alive"] for n in ray.nodes()))
request_resources(bundles=[{"CPU": 1}] * 3)
actors = [Actor.remote() for _ in range(3)]
print("actors on", len(set(ray.get([a.node.remote() for a in actors], timeout=90))))
request_resources(bundles=[])  # a request outlives its job
"""


def test_nodes_come_when_asked_for_and_go_when_idle(tmp_path):
    status, out = on_fake_cluster(sys.executable, "-c", PLAIN, cwd=tmp_path)
    assert status == 0, out
    assert "at first 1\n" in out
    assert "actors on 3\n" in out
    assert "fake_cluster: 3 nodes came and all went" in out


NET = """
import os, time
from torch import nn


class Net(nn.Linear):
    def __init__(self):
        super().__init__(64, 10)

    def forward(self, x):
        if self.training:
            time.sleep(float(os.environ.get("PAUSE", 0.1)))
        return super().forward(x)
"""
CONFIG = """
data: {dataset: digits}
partition: {kind: labels_per_shard, shards: 6, labels: 3}
model: {factory: "my_net:Net"}
algorithm: {kind: sisa, sigma: 0.3, rho: 30}
rounds: 150
evaluate_every: 10
batch_size: 16
workers: {min: 1, max: 1}
"""


def test_a_run_grows_with_the_cluster_and_ends_in_the_same_bits(tmp_path):
    """From no worker node to one at the start, to three when asked in mid-run; 90 s on one node, a third on three."""
    (tmp_path / "my_net.py").write_text(NET)
    (tmp_path / "run.yaml").write_text(CONFIG)
    train = [sys.executable, "-m", "pisa_ray", "train", "run.yaml", "--out", "elastic"]
    asked: list[str] = []

    def ask() -> None:
        until = time.monotonic() + 200
        while not (tmp_path / "elastic" / "metrics.jsonl").exists() and time.monotonic() < until:
            time.sleep(0.1)
        asked.append(pisa_ray("resize", "elastic", "3", cwd=tmp_path))

    asking = threading.Thread(target=ask)
    asking.start()
    status, out = on_fake_cluster(*train, cwd=tmp_path, seconds=300)
    asking.join()
    assert status == 0, out
    assert asked
    assert "Traceback" not in out
    events = [json.loads(line) for line in (tmp_path / "elastic" / "events.jsonl").read_text().splitlines()]
    started = [event for event in events if event["kind"] == "worker_started"]
    assert any(event["round"] > 0 for event in started), "no worker joined during the run"
    assert len({event["pid"] for event in started}) > 1
    assert re.search(r"fake_cluster: [23] nodes came and all went", out), out  # the request for room ended with the run

    # PAUSE is not part of the configuration, so this is the same run, only faster.
    environment = {"PAUSE": "0"}
    pisa_ray("train", "run.yaml", "--set", "workers=0", "--out", "alone", cwd=tmp_path, more=environment)
    alone, elastic = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("alone", "elastic"))
    assert elastic["weights_sha256"] == alone["weights_sha256"]
