"""Drains this machine's Ray node when AWS announces that it takes the spot instance back.

The notice comes two minutes ahead, and Ray's AWS provider does not watch for it. cluster.yaml starts this beside
`ray start` on every spot node. It needs Python alone, and ends when the node is draining.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime

METADATA = "http://169.254.169.254"
#: Seconds a metadata token lives; the longest that AWS gives.
TOKEN_LIFE = 21600
#: What AWS announces.
ACTIONS = ("terminate", "stop", "hibernate")
#: Bytes of an answer, which has some fifty, and seconds that it may take.
LONGEST, PATIENCE = 65536, 10.0


class Metadata:
    """The instance metadata service, version 2, which wants a token of its own.

    Args:
        url: Where it is.
    """

    def __init__(self, url: str) -> None:
        self._url, self._token = url.rstrip("/"), ""

    def notice(self) -> dict[str, str] | None:
        """Return what will happen to this instance (`action`) and when (`time`), or None if nothing is known.

        Raises:
            OSError: If the service does not answer.
            ValueError: If its answer is not a notice.
        """
        try:
            return self._notice()
        except urllib.error.HTTPError as error:
            if error.code != 401:  # the token is missing or has expired
                raise
            life = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_LIFE)}
            self._token = self._ask("/latest/api/token", life, "PUT")
            return self._notice()

    def _notice(self) -> dict[str, str] | None:
        try:
            answer = self._ask("/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": self._token})
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        found = json.loads(answer)
        if not isinstance(found, dict) or found.get("action") not in ACTIONS:
            raise ValueError(f"no notice: {answer[:200]!r}")
        return {key: value for key, value in found.items() if isinstance(value, str)}

    def _ask(self, path: str, headers: dict[str, str], method: str = "GET") -> str:
        request = urllib.request.Request(self._url + path, headers=headers, method=method)  # noqa: S310 - http only
        until, found = time.monotonic() + PATIENCE, b""
        with urllib.request.urlopen(request, timeout=2) as response:  # noqa: S310
            while part := response.read1(LONGEST):
                found += part
                if len(found) > LONGEST or time.monotonic() > until:
                    raise ValueError(f"an answer without an end: {found[:200]!r}")
        return found.decode()


def seconds_left(notice: dict[str, str], now: datetime) -> int:
    """Whole seconds until the instance ends, at least 0; 0 too where no time is named. A time without a zone is UTC.

    >>> seconds_left({"time": "2026-01-01T00:02:00Z"}, datetime(2026, 1, 1, tzinfo=UTC))
    120
    """
    try:
        end = datetime.fromisoformat(notice["time"])
        left = (end if end.tzinfo else end.replace(tzinfo=UTC)) - now
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0
    return max(0, int(left.total_seconds()))


def drain(options: argparse.Namespace, notice: dict[str, str]) -> bool:
    """Ask Ray to place nothing here any more and to tell those who run here; whether it agreed."""
    left = seconds_left(notice, datetime.now(UTC))
    command = [options.ray, "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", f"spot {notice['action']}, {left} s ahead"]
    command += ["--deadline-remaining-seconds", str(left)]
    for option in ("address", "node_id"):
        if getattr(options, option):
            command += [f"--{option.replace('_', '-')}", getattr(options, option)]
    # Without --node-id Ray connects to look its node up, and without RAY_ADDRESS to whatever ran here last.
    environment = os.environ | ({"RAY_ADDRESS": options.address} if options.address else {})
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"ray drain-node failed: {error}")
        return False
    say(f"ray drain-node, {left} s ahead: {'draining' if done.returncode == 0 else (done.stdout + done.stderr)[-500:]}")
    return done.returncode == 0


def watch(options: argparse.Namespace) -> None:
    """Look until there is a notice and the node is draining."""
    metadata, trouble = Metadata(options.metadata), ""
    while True:
        try:
            notice = metadata.notice()
            if notice and drain(options, notice):
                return
            trouble = ""
        except Exception as error:  # nothing that a service may answer ends this: nobody would start it again
            if repr(error) != trouble:  # once, not every few seconds
                trouble = repr(error)
                say(f"the metadata service at {options.metadata} does not answer as expected: {trouble}")
        time.sleep(options.every)


def say(text: str) -> None:
    """One line with the time."""
    with suppress(OSError, ValueError):  # a log that is full or closed is no reason to end
        print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} spot_drain: {text}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run until the node is draining."""
    parser = argparse.ArgumentParser(description="Drain this Ray node when AWS takes its spot instance back.")
    parser.add_argument("--address", help="the cluster's host:port (default: the Ray that runs on this machine)")
    parser.add_argument("--node-id", help="the node to drain (default: this machine's)")
    parser.add_argument("--metadata", default=METADATA, help="where the metadata service is (default: %(default)s)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between looks (default: %(default)g)")
    parser.add_argument("--ray", default="ray", help="the ray command (default: the one on PATH)")
    watch(parser.parse_args(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
