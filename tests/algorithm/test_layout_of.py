"""What a model's parameters are taken for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pisa_ray.algorithm.layout import layout_of


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)


class Tied(nn.Module):
    """Its head is the embedding, in forward only."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.blocks = nn.Embedding(9, 4), nn.ModuleList([Block(), Block()])


class HeadFirst(Tied):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.head = nn.Linear(4, 9)
        self.wte, self.blocks = nn.Embedding(9, 4), nn.Sequential(Block(), Block())


class TiedHead(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.wte.weight


@pytest.mark.parametrize(
    ("model", "heads"),
    [
        (Tied(), []),
        (TiedHead(), []),
        (HeadFirst(), ["head.weight"]),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), ["2.weight"]),
        (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), ["1.weight"]),
        (nn.Linear(4, 2), ["weight"]),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), []),
        (
            nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2, enable_nested_tensor=False),
            [],
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_head_is_the_last_linear_layer_that_is_in_no_list_of_blocks(model, heads) -> None:
    layout = layout_of(model)
    assert [slot.name for slot in layout.slots if slot.head] == heads
    assert all(slot.matrix for slot in layout.slots if slot.head)


def test_embeddings_are_no_matrices_and_frozen_parameters_have_no_place() -> None:
    model = Tied()
    model.blocks[0].requires_grad_(False)
    layout = layout_of(model)
    assert {slot.name: slot.matrix for slot in layout.slots} == {
        "wte.weight": False,
        "blocks.1.up.weight": True,
        "blocks.1.up.bias": False,
        "blocks.1.down.weight": True,
        "blocks.1.down.bias": False,
    }
    assert layout.size == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert torch.equal(layout.views(torch.arange(layout.size))["wte.weight"], torch.arange(36).view(9, 4))
