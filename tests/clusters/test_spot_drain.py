"""The spot watcher against a metadata server that behaves as AWS's does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from local import ROOT, Head
from spot_drain import Metadata, seconds_left

SCRIPT = ROOT / "tools" / "spot_drain.py"
PATIENCE = 60


class Instance:
    """Instance metadata, version 2: a PUT gives a token, without which a GET is refused; no notice is a 404."""

    def __init__(self):
        self.notice, self.token, self.looks, self.looked = None, 0, 0, threading.Event()
        instance = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self):
                life = int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"])
                assert self.path == "/latest/api/token"
                assert 1 <= life <= 21600
                instance.token += 1
                self.answer(200, f"token-{instance.token}")

            def do_GET(self):
                if self.headers.get("X-aws-ec2-metadata-token") != f"token-{instance.token}":
                    self.answer(401)
                    return
                assert self.path == "/latest/meta-data/spot/instance-action"
                instance.looks += 1
                if instance.looks >= 3:
                    instance.looked.set()
                if instance.notice is None:
                    self.answer(404)
                else:
                    self.answer(200, instance.notice)

            def answer(self, status, text=""):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def interrupt(self, seconds):
        end = datetime.now(UTC) + timedelta(seconds=seconds)
        self.notice = json.dumps({"action": "terminate", "time": f"{end:%Y-%m-%dT%H:%M:%SZ}"})


@pytest.fixture
def instance():
    instance = Instance()
    yield instance
    instance.server.shutdown()
    instance.server.server_close()


def watcher(instance, *options, environment=None):
    command = [sys.executable, str(SCRIPT), "--metadata", instance.url, "--every", "0.05", *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment or os.environ
    )


def fake_ray(tmp_path, failures=0):
    """Writes down its arguments; fails at first, as it does while the head is busy."""
    script, calls = tmp_path / "ray", tmp_path / "calls"
    script.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"call = json.dumps([os.environ['RAY_ADDRESS'], *sys.argv[1:]])\n"
        f"with open({str(calls)!r}, 'a') as file: print(call, file=file)\n"
        f"sys.exit(sum(1 for _ in open({str(calls)!r})) <= {failures})\n"
    )
    script.chmod(0o755)
    return script, calls


def test_nothing_happens_without_a_notice_and_one_drain_with_it(instance, tmp_path):
    script, calls = fake_ray(tmp_path)
    process = watcher(instance, "--ray", str(script), "--address", "10.0.0.1:6379")
    assert instance.looked.wait(PATIENCE)
    assert process.poll() is None
    assert not calls.exists()
    instance.interrupt(120)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out
    assert instance.token == 1
    (call,) = [json.loads(line) for line in calls.read_text().splitlines()]
    assert call[0] == "10.0.0.1:6379"
    options = dict(zip(call[2::2], call[3::2], strict=True))
    assert call[1] == "drain-node"
    assert options["--address"] == "10.0.0.1:6379"
    assert options["--reason"] == "DRAIN_NODE_REASON_PREEMPTION"
    assert "terminate" in options["--reason-message"]
    assert 60 <= int(options["--deadline-remaining-seconds"]) <= 120


def test_an_expired_token_is_renewed(instance):
    metadata = Metadata(instance.url)
    assert metadata.notice() is None
    instance.token += 1  # ours has expired
    instance.interrupt(100)
    assert metadata.notice()["action"] == "terminate"


def test_a_refused_drain_and_nonsense_are_tried_again(instance, tmp_path):
    script, calls = fake_ray(tmp_path, failures=2)
    instance.notice = "<html>"
    process = watcher(instance, "--ray", str(script), "--address", "10.0.0.1:6379", "--node-id", "ab12")
    assert instance.looked.wait(PATIENCE)
    instance.interrupt(1)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out
    assert len(calls.read_text().splitlines()) == 3
    assert '"--node-id", "ab12"' in calls.read_text()
    assert out.count("does not answer as expected") == 1
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("notice", "left"), [({"time": "2026-01-01T00:01:00Z"}, 60), ({"time": "2025-01-01T00:00:00Z"}, 0), ({}, 0)]
)
def test_seconds_left(notice, left):
    assert seconds_left(notice, datetime(2026, 1, 1, tzinfo=UTC)) == left


SEE = """
import time, ray
from ray._private.state import state
ray.init(address={address!r}, logging_level="ERROR")

@ray.remote(num_cpus=1)
class Busy:  # an idle node ends itself at once when it is drained
    def where(self):
        return ray.get_runtime_context().get_node_id()

busy = Busy.remote()
print("ready", ray.get(busy.where.remote(), timeout=60), flush=True)
until = time.monotonic() + 60
while not state.get_draining_nodes() and time.monotonic() < until:
    time.sleep(0.05)
print("draining", state.get_draining_nodes(), flush=True)
"""


@pytest.mark.cluster
@pytest.mark.ray
def test_a_driver_sees_its_node_draining(instance):
    with Head() as head:
        driver = subprocess.Popen(
            [sys.executable, "-c", SEE.format(address=head.address)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=head.environment,
        )
        ready = driver.stdout.readline()
        assert ready.startswith("ready"), ready + driver.stdout.read()
        instance.interrupt(120)
        process = watcher(instance, "--address", head.address, environment=head.environment)
        out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, out
        seen, _ = driver.communicate(timeout=PATIENCE)
        assert re.fullmatch(rf"draining {{'{ready.split()[1]}': \d+}}", seen.strip().splitlines()[-1]), seen
