"""FedAvg gives what Flower's FedAvg gives, given the same batches: Flower itself, in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/flower_fedavg.py"
UNREACHABLE = 3  # the script's exit status where it cannot install Flower for want of PyPI


@pytest.mark.slow
def test_fedavg_gives_flowers_weights():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--digits", "--workers", "0"], capture_output=True, text=True, check=False
    )
    if done.returncode == UNREACHABLE:
        pytest.skip("PyPI cannot be reached, so Flower cannot be installed")
    assert done.returncode == 0, done.stdout + done.stderr
    agreeing = [line.split(" |a-b|")[0].strip() for line in done.stdout.splitlines() if line.endswith(" agree")]
    assert agreeing == ["pisa_ray", "plain torch"]
