"""Muon beside AdamW as one optimizer, which is what SyncOptimizer takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class MuonAndAdamW(torch.optim.Optimizer):
    """torch's Muon, without weight decay, for the matrices of the blocks, and its AdamW for all else.

    Args:
        params: A model's parameters.
        lr: Of Muon.
        ratio: AdamW's learning rate over Muon's, so that one schedule moves both.
        tables: Shapes of matrices that are none of a block: the embeddings.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, ratio: float, tables: Any) -> None:
        super().__init__(params, {"lr": lr, "ratio": ratio})
        parts: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for p in (p for group in self.param_groups for p in group["params"]):
            parts[p.ndim == 2 and tuple(p.shape) not in tables].append(p)
        others, matrices = parts
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:  # torch's optimizers refuse to have nothing to do
            self._parts.append(torch.optim.Muon(matrices, lr=lr, weight_decay=0.0))
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=lr * ratio))
        for part in self._parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self._parts:
            part.step()
