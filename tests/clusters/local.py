"""A Ray head of one's own on this machine, with the job API, a token and ports that nobody else uses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "ray-client-server-port",
    "metrics-export-port",
    "runtime-env-agent-port",
)


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Head:
    """`ray start --head --block` as a child process, ended by SIGTERM.

    `ray stop` would end every Ray on the machine, so it is not used.
    """

    def __init__(self, cpus: int = 2, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        token = self.folder / "token"
        token.touch(mode=0o600)
        self._token = "0123456789abcdef" * 4
        token.write_text(self._token)
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.address = f"127.0.0.1:{ports['port']}"
        self.dashboard = f"http://127.0.0.1:{ports['dashboard-port']}"
        outer = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        self.environment = outer | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_API_SERVER_ADDRESS": self.dashboard,
        }
        self.log = self.folder / "head.log"
        command = [str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
        command += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", "--disable-usage-stats"]
        command += [f"--temp-dir={self.folder / 'ray'}", f"--num-cpus={cpus}", f"--object-store-memory={200 << 20}"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        command += [f"--{name}={port}" for name, port in ports.items()]
        if shutil.which("setpriv"):  # when the tests are killed, the head gets SIGTERM; else a whole Ray would stay
            command = ["setpriv", "--pdeathsig", "TERM", *command]
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=self.environment | environment,
                start_new_session=True,
            )

    def __enter__(self) -> Head:
        self.wait(lambda: "Ray runtime started" in self.log.read_text(), 120, "Ray did not start")
        self.wait(self._answers, 120, "the job API does not answer")
        return self

    def wait(self, done, seconds: float, otherwise: str) -> None:
        until = time.monotonic() + seconds
        while not done():
            assert self._process.poll() is None, f"the head has ended: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < until, otherwise
            time.sleep(0.1)

    def ray(self, *arguments: str, check: bool = True, seconds: float = 240) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "ray"), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, timeout=seconds, check=False
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def get(self, path: str, *, token: bool = True) -> Any:
        """What the dashboard's HTTP interface answers."""
        headers = {"Authorization": f"Bearer {self._token}"} if token else {}
        request = urllib.request.Request(f"{self.dashboard}/api/{path}", headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)

    def _answers(self) -> bool:
        try:
            self.get("jobs/")
        except OSError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            shutil.rmtree(self.folder, ignore_errors=True)


def pisa_ray(*arguments: str | Path, cwd: Path, more: Mapping[str, str] | None = None) -> str:
    """Run the command here, to its good end; returns its standard output."""
    command = [sys.executable, "-m", "pisa_ray", *map(str, arguments)]
    environment = {**os.environ, **(more or {})}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
