"""Runs as Ray jobs on a local head: logs, statuses, stopping and resuming, the token, what is shipped."""

from __future__ import annotations

import json
import re
import shutil
import socket
import urllib.error

import pytest
from local import ROOT, Head, pisa_ray

pytestmark = [pytest.mark.cluster, pytest.mark.ray]

NET = """
import os, time
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, x):
        if self.training:
            time.sleep(float(os.environ.get("PAUSE", 0)))
        return super().forward(x)
"""
CONFIG = """
data: {dataset: digits}
partition: {kind: labels_per_shard, shards: 4, labels: 3}
model: {factory: "my_net:Net"}
algorithm: {kind: sisa, sigma: 0.3, rho: 30}
rounds: 20
evaluate_every: 1
checkpoint: {every: null}
batch_size: 16
workers: 2
"""


@pytest.fixture(scope="module")
def head():
    with Head(RAY_JOB_STOP_WAIT_TIME_S="60") as head:
        yield head


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A user's folder, with a model of their own and things that should stay at home."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "my_net.py").write_text(NET)
    (folder / "run.yaml").write_text(CONFIG)
    shutil.copy(ROOT / ".rayignore", folder)
    for name in (".git", ".venv/lib", "runs/old"):
        (folder / name).mkdir(parents=True)
        (folder / name / "large.bin").write_bytes(b"x" * 1000)
    return folder


@pytest.fixture(scope="module")
def undisturbed(project):
    """weights_sha256 of the same run in one process, without Ray."""
    pisa_ray("train", "run.yaml", "--set", "workers=0", "--out", "runs/undisturbed", cwd=project)
    return result(project / "runs" / "undisturbed")["weights_sha256"]


def result(folder):
    return json.loads((folder / "result.json").read_text())


def submit(head, project, name, *arguments, wait=True, env_vars=None):
    options = ["--working-dir", str(project), "--submission-id", name]
    if env_vars:
        options += ["--runtime-env-json", json.dumps({"env_vars": env_vars})]
    if not wait:
        options += ["--no-wait"]
    return head.ray("job", "submit", *options, "--", "pisa-ray", "train", "run.yaml", *arguments, check=False)


def logs(head, name):
    return head.get(f"jobs/{name}/logs")["logs"]


def status(head, name):
    return head.get(f"jobs/{name}")["status"]


def test_a_good_job_succeeds_with_readable_logs_and_the_same_bits(head, project, undisturbed, tmp_path):
    done = submit(head, project, "good", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert status(head, "good") == "SUCCEEDED"
    log = logs(head, "good")
    assert log in head.ray("job", "logs", "good").stdout  # below a line of Ray's own, in colours
    assert len(re.findall(r"^round \d+/20  loss ", log, re.MULTILINE)) == 20
    assert "finished after 20 rounds" in log
    assert "Traceback" not in log
    ours = log.partition("Running entrypoint for job")[2]  # Ray's line before that has a tab
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", ours), "control characters"
    assert result(tmp_path / "run")["weights_sha256"] == undisturbed


def test_bad_input_fails_the_job_with_one_sentence(head, project, tmp_path):
    done = submit(head, project, "bad", "--out", str(tmp_path / "run"), "--set", "partition.labels=12")
    assert done.returncode == 1
    assert status(head, "bad") == "FAILED"
    log = logs(head, "bad")
    (line,) = [line for line in log.splitlines() if line.startswith("pisa-ray: ")]
    assert line.startswith("pisa-ray: partition.labels is 12, but ")
    assert "Traceback" not in log
    assert not (tmp_path / "run").exists()


def test_stop_leaves_a_checkpoint_from_which_another_job_ends_in_the_same_bits(head, project, undisturbed, tmp_path):
    run = tmp_path / "run"
    # A round takes about 6 s, longer than the 3 s that Ray gives a job by itself.
    submit(head, project, "stopped", "--out", str(run), wait=False, env_vars={"PAUSE": "3"})
    metrics = run / "metrics.jsonl"
    head.wait(lambda: metrics.exists() and metrics.read_text().count("\n") >= 1, 180, "no round was finished")
    head.ray("job", "stop", "stopped")
    assert status(head, "stopped") == "STOPPED"
    log = logs(head, "stopped")
    assert "Traceback" not in log
    assert f"--out {run} --resume" in log
    stopped = result(run)
    assert stopped["status"] == "interrupted"
    assert 0 < stopped["rounds"] < 20
    assert list(run.glob(f"checkpoints/round-*{stopped['rounds']}-*/manifest.json"))

    done = submit(head, project, "resumed", "--out", str(run), "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    log = logs(head, "resumed")
    assert f"resuming at round {stopped['rounds']}" in log
    assert "Traceback" not in log
    assert result(run)["weights_sha256"] == undisturbed


def test_only_what_a_job_needs_was_shipped(head):
    folders = [p for p in head.folder.glob("ray/session_2*/runtime_resources/working_dir_files/*") if p.is_dir()]
    assert folders
    for folder in folders:
        assert {p.name for p in folder.iterdir()} - {"__pycache__"} == {"my_net.py", "run.yaml", ".rayignore"}


def test_the_job_api_wants_the_token_and_listens_here_only(head):
    with pytest.raises(urllib.error.HTTPError) as refused:
        head.get("jobs/", token=False)
    assert refused.value.code == 401
    port = int(head.dashboard.rpartition(":")[2])
    for here in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}:
        if not here.startswith("127."):
            with socket.socket() as other:
                other.settimeout(5)
                assert other.connect_ex((here, port)) != 0
