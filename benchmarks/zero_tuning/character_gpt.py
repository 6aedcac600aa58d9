"""Recipes as blocks of characters in Parquet files, and the small GPT that guesses the next one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn
from torch.nn import functional

#: Characters are bytes of ASCII; 0 stands between two recipes.
SYMBOLS = 128
#: Characters of a block, and the parts of equally many blocks that the training text is cut into.
LENGTH, PARTS = 64, 4


class Block(nn.Module):
    """Causal self-attention and a hidden layer, each after a layer norm and with a way around it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        qkv = self.attention(self.before(x)).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mix(found.transpose(1, 2).reshape(rows, length, width))
        hidden: torch.Tensor = self.down(functional.gelu(self.up(self.after(x))))
        return x + hidden


class GPT(nn.Module):
    """Characters [rows, LENGTH] -> a score for each next one, [rows, SYMBOLS, LENGTH]."""

    def __init__(self, width: int = 128, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(SYMBOLS, width), nn.Embedding(LENGTH, width)
        for table in (self.characters, self.places):
            nn.init.normal_(table.weight, std=0.1)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.scores = nn.LayerNorm(width), nn.Linear(width, SYMBOLS, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.blocks(self.characters(x.long()) + self.places.weight)
        scores: torch.Tensor = self.scores(self.norm(hidden))
        return scores.transpose(1, 2)


def write_characters(recipes: Path, folder: Path) -> None:
    """Write train.parquet and test.parquet (characters, next, part), unless they are there.

    Args:
        recipes: Folder with the texts, train.parquet and validation.parquet.
        folder: Where they go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in (("train", "train"), ("validation", "test")):
        place = folder / f"{name}.parquet"
        if place.exists():
            continue
        texts = pq.read_table(recipes / f"{source}.parquet", columns=["text"])["text"].to_pylist()
        codes = np.frombuffer("\0".join(texts).encode("ascii", "replace"), np.uint8)
        blocks = (len(codes) - 1) // LENGTH
        before, after = codes[: blocks * LENGTH], codes[1 : blocks * LENGTH + 1]
        table = pa.table(
            {
                "characters": pa.FixedSizeListArray.from_arrays(pa.array(before), LENGTH),
                "next": pa.FixedSizeListArray.from_arrays(pa.array(after), LENGTH),
                "part": pa.array(np.arange(blocks) * PARTS // blocks),
            }
        )
        part = place.with_suffix(".part")
        pq.write_table(table, part)
        os.replace(part, place)  # so that what has the name is whole
