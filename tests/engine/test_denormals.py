"""Numbers below 1e-38 are 0 in every thread of a run, or it is said that they are not."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
import torch

from pisa_ray.engine import numerics

RUN = (
    "import sys, warnings, torch\n"
    "torch.set_num_threads(2)\n"
    "if sys.argv[1] == 'used': torch.ones(1 << 20).mul(2)\n"
    "from pisa_ray.engine.numerics import set_numerics\n"
    "with warnings.catch_warnings(record=True) as told:\n"
    "    warnings.simplefilter('always'); set_numerics(2)\n"
    "print(len(told), int(torch.full((1 << 20,), 2e-38).mul(0.3).count_nonzero()))"
)


@pytest.mark.parametrize("before", ["fresh", "used"])
def test_a_process_whose_threads_do_not_all_flush_says_so(before):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, before], env=environment, capture_output=True, text=True, check=True
    )
    told, left = map(int, done.stdout.split())
    assert told == (left > 0) == (before == "used")


def test_one_thread_needs_no_look(monkeypatch):
    monkeypatch.setattr(numerics, "_all_flush", lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numerics.set_numerics(1)
    with pytest.warns(UserWarning, match="begin in a fresh process, or use threads_per_worker=1"):
        numerics.set_numerics(2)
    assert torch.get_num_threads() == 2
