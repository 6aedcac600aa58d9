"""Runs a command on a Ray cluster that grows and shrinks by itself, all on this machine.

    python fake_cluster.py [--nodes 3] [--idle 6] -- COMMAND ...

The head has no CPU; Ray's real autoscaler (v2) adds nodes of one CPU each through Ray's fake node provider, and takes
idle ones away. Everything lives in process, network and mount namespaces of its own (Linux's `unshare`), so it meets no
other Ray, needs no free ports, and leaves nothing behind: when the first process in there ends, the kernel ends the
rest. RAY_ADDRESS is set for COMMAND, whose exit status is returned; 3 if nodes are still there a minute after it.

ray.cluster_utils.AutoscalingCluster is not used: it wants a file that the wheel lacks, and calls `ray stop --force`.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ADDRESS = "127.0.0.1:6379"
#: The id that the fake provider gives the head.
HEAD = "f" * 51 + "00000"
UNSHARE = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"])]
UNSHARE += ["--pid", "--fork", "--kill-child", "--net", "--mount", "--mount-proc"]
INSIDE = "PISA_RAY_INSIDE_FAKE_CLUSTER"


def possible() -> bool:
    """Whether this machine lets us make namespaces."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


def configuration(nodes: int, idle: float) -> dict[str, Any]:
    lists = ["initialization_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter"]
    lists += [f"{kind}setup_commands" for kind in ("", "head_", "worker_")]
    lists += [f"{kind}_start_ray_commands" for kind in ("head", "worker")]
    return {
        "cluster_name": "fake",
        "max_workers": nodes,
        "idle_timeout_minutes": idle / 60,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "external",  # by its class, since type fake_multinode wants a file of defaults
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": ADDRESS,
            "head_node_id": HEAD,
            "launch_multiple": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 1, "object_store_memory": 100 << 20},
                "node_config": {},
                "min_workers": 0,
                "max_workers": nodes,
            },
        },
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in lists},
        "file_mounts_sync_continuously": False,
    }


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP


def wait(done, seconds: float, head: subprocess.Popen[bytes], log: Path) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if done():
            return True
        if head.poll() is not None:
            sys.exit(f"the head has ended: {log.read_text()[-3000:]}")
        time.sleep(0.1)
    return False


def inside(options: argparse.Namespace, folder: Path) -> int:
    loopback_up()
    config, log = folder / "autoscaler.json", folder / "head.log"
    config.write_text(json.dumps(configuration(options.nodes, options.idle)))
    outer = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment = outer | {"RAY_AUTH_MODE": "disabled", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    fake = {"RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    fake |= {"RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD}
    command = ["ray", "start", "--head", "--block", "--port=6379", "--node-ip-address=127.0.0.1", "--num-cpus=0"]
    command += [f"--temp-dir={folder / 'ray'}", f"--autoscaling-config={config}", "--include-dashboard=false"]
    command += [f"--object-store-memory={100 << 20}", "--disable-usage-stats"]
    with log.open("w") as file:
        head = subprocess.Popen(command, stdout=file, stderr=file, env=environment | fake)
    if not wait(lambda: "Ray runtime started" in log.read_text(), 120, head, log):
        sys.exit(f"the head did not start: {log.read_text()[-3000:]}")
    environment["RAY_ADDRESS"] = ADDRESS
    status = subprocess.run(options.command, env=environment, check=False).returncode

    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray  # outside of the namespaces it is not needed

    ray.init(ADDRESS, logging_level="ERROR", log_to_driver=False)
    gone = wait(lambda: sum(node["Alive"] for node in ray.nodes()) == 1, 60, head, log)
    came = len(ray.nodes()) - 1  # dead ones stay listed
    print(f"fake_cluster: {came} nodes came and {'all' if gone else 'not all'} went", flush=True)
    ray.shutdown()
    head.send_signal(signal.SIGTERM)
    head.wait(60)
    return status or (0 if gone else 3)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a command on a fake Ray cluster that scales by itself.")
    parser.add_argument("--nodes", type=int, default=3, help="most nodes besides the head (default: %(default)s)")
    parser.add_argument("--idle", type=float, default=6, help="seconds until an idle node goes (default: %(default)g)")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parser.parse_args()
    if folder := os.environ.pop(INSIDE, None):
        return inside(options, Path(folder))
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets need short paths
    try:
        again = [*UNSHARE, sys.executable, __file__, *sys.argv[1:]]
        return subprocess.run(again, env={**os.environ, INSIDE: folder}, check=False).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
