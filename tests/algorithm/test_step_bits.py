"""The bits of a step: golden hashes, and that neither blocks nor alignment change them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from problems import known, state_sha256

from pisa_ray.algorithm import NSISA, PISA, SISA, SISAD, Layout, RowLayout, Task, consensus
from pisa_ray.algorithm import layout as layout_module
from pisa_ray.algorithm.rules import square_root

METHODS = [SISA(sigma=2, rho=200), SISAD(sigma=60, rho=540), NSISA(rest=None, sigma=80, rho=100), PISA(sigma=1, rho=3)]
GOLDEN = {
    ("SISA", "7e0d5dd4e0326c74"),
    ("SISAD", "cb5fe87b8ab14695"),
    ("NSISA", "c651679f676058bc"),
    ("PISA", "86570ab85a9ec1fa"),
}


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_block_size_and_alignment_do_not_change_a_bit(method, steps, monkeypatch):
    torch.manual_seed(2)
    values = torch.randn(5, 1000)

    def run(offset=0):
        def aligned(x):
            room = torch.empty(len(x) + offset)[offset:]
            return room.copy_(x)

        layout = Layout.of([("a", (30, 30), True), ("b", (100,), False)])
        rows = RowLayout(1000, method.penalties(layout).size)
        message = rows.split(aligned(torch.empty(rows.width)))
        w, gap = aligned(values[0]), aligned(values[1])
        shard = method.initial_state(w, layout)
        for g in values[2:]:
            method.step(shard, Task(w, known(aligned(g)), 2.0, layout, gap=gap, steps=steps), message)
        message.weight.fill_(1)
        return [state_sha256(shard), *(x.numpy().tobytes() for x in (message.N, gap, consensus(message, 0.1, w)))]

    first = run()
    assert all(run(offset) == first for offset in (1, 3, 7))
    monkeypatch.setattr(layout_module, "BLOCK", 64)
    assert len(list(layout_module.blocks(values[0]))) == 16
    assert run() == first


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_bits_of_a_few_steps(method):
    """Golden bits: plain products and sums only, so no vector width, fused form or torch version may change them."""
    random = np.random.Generator(np.random.Philox(key=1))
    values = [torch.from_numpy(random.standard_normal(100_003, dtype=np.float32)) for _ in range(4)]
    layout = Layout.of([("b", (100_003,), False)])
    rows = RowLayout(100_003, method.penalties(layout).size)
    row = torch.empty(rows.width)
    message = rows.split(row)
    shard = method.initial_state(values[0], layout)
    for g in values[1:]:
        method.step(shard, Task(values[0], known(g.clone()), 1.7, layout), message)
    rows.complete(row, 0.3, row[:0])
    w = consensus(message, 0.1, torch.empty(100_003))
    digest = hashlib.sha256(row.numpy().tobytes() + w.numpy().tobytes()).hexdigest()[:16]
    assert (type(method).__name__, digest) in GOLDEN


def test_square_roots_are_made_of_correctly_rounded_operations():
    x = np.random.default_rng(0).standard_normal(100_003).astype(np.float32) ** 2
    x[:3] = 0, 1, np.inf
    with np.errstate(divide="ignore"):
        expected = np.float32(1) / (np.float32(1) / np.sqrt(x))
    assert np.array_equal(square_root(torch.from_numpy(x)).numpy(), expected)


def test_a_coordinate_without_gradient_does_not_stay_denormal():
    torch.set_flush_denormal(True)
    try:
        layout, method = Layout.of([("b", (8,), False)]), SISAD(sigma=60, rho=540)
        rows = RowLayout(8, 8)
        message = rows.split(torch.empty(rows.width))
        w = torch.zeros(8)
        shard = method.initial_state(w, layout)
        for g in [torch.ones(8), *[torch.zeros(8)] * 1200]:
            method.step(shard, Task(w, known(g.clone()), 60.0, layout), message)
        assert (shard.dual.abs() >= torch.finfo(torch.float32).tiny).all() or not shard.dual.any()
    finally:
        torch.set_flush_denormal(False)
