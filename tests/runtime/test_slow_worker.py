"""The slow worker of benchmarks/stragglers.py: what is measured, who is slow, and that nothing else changes."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

NOBODY = -1


@pytest.fixture
def slow_worker(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import slow_worker

    yield slow_worker
    for name in ("slow_worker", "common"):
        sys.modules.pop(name, None)


@pytest.fixture
def slept(monkeypatch):
    """Clock and sleep of this thread: every operation of `Ticks` takes a second."""
    clock, naps = [0.0], []
    monkeypatch.setattr(time, "thread_time", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", naps.append)

    class Tick(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            clock[0] += 1
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            assert threading.current_thread() is threading.main_thread(), "thread CPU time would not see this"
            clock[0] += 2
            return g

    class Ticks(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.second(Tick.apply(self.first(x)))

    return Ticks, naps


def gradients(net: nn.Module) -> list[torch.Tensor]:
    net.zero_grad()
    net(torch.ones(5, 3)).square().sum().backward()
    return [p.grad.clone() for p in net.parameters()]


def test_every_gradient_is_slowed_by_its_whole_time_and_unchanged(slow_worker, slept, tmp_path):
    ticks, naps = slept
    slow = slow_worker.SlowWorker(ticks(), tmp_path / "slow", 10.0, NOBODY)
    plain = gradients(ticks())
    for _ in range(2):  # the second gradient of a batch is like the first
        assert all(torch.equal(a, b) for a, b in zip(gradients(slow), plain, strict=True))
    assert naps == [27.0, 27.0]  # 9 times one second forward and two backward
    assert (tmp_path / "slow").read_text() == str(os.getpid())


def test_evaluations_are_not_slowed_and_claim_nothing(slow_worker, slept, tmp_path):
    ticks, naps = slept
    slow = slow_worker.SlowWorker(ticks(), tmp_path / "slow", 10.0, NOBODY)
    slow.eval()
    slow(torch.ones(5, 3))
    slow.train()
    with torch.no_grad():
        slow(torch.ones(5, 3))
    assert naps == []
    assert not (tmp_path / "slow").exists()


def test_neither_the_driver_nor_a_second_process_is_slow(slow_worker, slept, tmp_path):
    ticks, naps = slept
    gradients(slow_worker.SlowWorker(ticks(), tmp_path / "slow", 10.0, os.getpid()))
    assert not (tmp_path / "slow").exists()
    (tmp_path / "slow").write_text("another")
    gradients(slow_worker.SlowWorker(ticks(), tmp_path / "slow", 10.0, NOBODY))
    assert naps == []
    assert (tmp_path / "slow").read_text() == "another"
