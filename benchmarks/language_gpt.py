"""Recipes as blocks of tokens in Parquet files, and the GPT-2 that guesses the next one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import ByteLevelBPETokenizer
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

#: Tokens that there are, tokens of a block, shards of equally many blocks, and blocks that the test loss is of.
VOCABULARY, LENGTH, SHARDS, TESTED = 1000, 64, 4, 200
WIDTH, LAYERS, HEADS = 96, 2, 4

#: What stands between two recipes.
END = "<|endoftext|>"


class GPT(nn.Module):
    """Tokens [rows, LENGTH] -> a score for each next one, [rows, VOCABULARY, LENGTH]; the head is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.gpt = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_positions=LENGTH,
                n_embd=WIDTH,
                n_layer=LAYERS,
                n_head=HEADS,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=0,
                eos_token_id=0,
                use_cache=False,
            )
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.gpt(input_ids=tokens).logits
        return scores.transpose(1, 2)


def write_blocks(recipes: Path, folder: Path) -> None:
    """Write train, test and validation.parquet (tokens, next, part), unless they are there.

    Test and validation rows are the first blocks of the held-out recipes and the others. A shard's part is a stretch of
    the training text, in its order.

    Args:
        recipes: Folder with the texts, train.parquet and validation.parquet.
        folder: Where they go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "validation.parquet").exists():  # the last one
        return
    texts = {name: pq.read_table(recipes / f"{name}.parquet")["text"].to_pylist() for name in ("train", "validation")}
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts["train"], VOCABULARY, show_progress=False, special_tokens=[END])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(_blocks(tokenizer, texts["train"]), folder / "train.parquet")
    held_out = _blocks(tokenizer, texts["validation"])
    _write(held_out[:TESTED], folder / "test.parquet")
    _write(held_out[TESTED:], folder / "validation.parquet")


def _blocks(tokenizer: ByteLevelBPETokenizer, texts: list[str]) -> np.ndarray:
    """The tokens of texts in blocks, each with the first token of the next one, [blocks, LENGTH + 1]."""
    tokens = np.concatenate([np.array(tokenizer.encode(text + END).ids, np.int32) for text in texts])
    return np.lib.stride_tricks.sliding_window_view(tokens, LENGTH + 1)[::LENGTH]


def _write(blocks: np.ndarray, place: Path) -> None:
    columns = {"tokens": blocks[:, :-1], "next": blocks[:, 1:].astype(np.int64)}
    table = {name: pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), LENGTH) for name, x in columns.items()}
    part = place.with_suffix(".part")
    pq.write_table(pa.table(table | {"part": pa.array(np.arange(len(blocks)) * SHARDS // len(blocks))}), part)
    os.replace(part, place)  # so that what has the name is whole
