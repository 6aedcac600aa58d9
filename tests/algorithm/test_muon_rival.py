"""The benchmarks' Muon beside AdamW: as one optimizer it is torch's two, also through SyncOptimizer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from pisa_ray.algorithm import Layout, RowLayout, SyncOptimizer
from pisa_ray.algorithm.method import Update

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from muon import MuonAndAdamW

SHAPES = {"table": (10, 4), "matrix": (4, 12), "gain": (4,), "other": (8, 4)}
TABLES = (SHAPES["table"],)


def gradients(steps: int) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(sum(torch.Size(shape).numel() for shape in SHAPES.values())) for _ in range(steps)]


def layout() -> Layout:
    return Layout.of((name, shape, name in ("matrix", "other")) for name, shape in SHAPES.items())


def by_torch(w: torch.Tensor, steps: list[torch.Tensor]) -> torch.Tensor:
    """Muon for two matrices, AdamW for the table and the vector, in a plain loop."""
    flat = w.clone()
    parts = {name: torch.nn.Parameter(view) for name, view in layout().views(flat).items()}
    muon = torch.optim.Muon([parts["matrix"], parts["other"]], lr=0.02, weight_decay=0.0)
    adamw = torch.optim.AdamW([parts["table"], parts["gain"]], lr=0.01)
    for g in steps:
        for name, view in layout().views(g).items():
            parts[name].grad = view
        muon.step()
        adamw.step()
    return flat


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from version 2.9 on")
def test_one_optimizer_through_syncoptimizer_steps_as_torchs_two_do():
    method = SyncOptimizer(lr=0.02, optimizer=MuonAndAdamW, options={"ratio": 0.5, "tables": TABLES})
    first = torch.randn(layout().size)
    w, rows, memory = first.clone(), RowLayout(layout().size), method.initial_memory(layout())
    for g in gradients(3):
        total, out = rows.split(torch.cat([g, torch.ones(2)])), torch.empty_like(w)
        method.update(Update(total, w, method.sigma, layout(), out), memory)
        w = out
    assert torch.equal(w, by_torch(first, gradients(3)))
