"""Newton-Schulz steps in bfloat16: Muon's own, close to those in float32, for one matrix as for a batch."""

from __future__ import annotations

import pytest
import torch

from pisa_ray.algorithm.newton_schulz import orthogonalise, shape_scale

SHAPES = [(8, 24), (24, 8), (16, 16)]


def matrix(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(0))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from version 2.9 on")
@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_gives_what_torchs_muon_gives(shape):
    x, w = matrix(*shape)[0], torch.nn.Parameter(torch.zeros(shape))
    w.grad = x.clone()
    torch.optim.Muon([w], lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False).step()
    o = orthogonalise(x.bfloat16()).float() * shape_scale(*shape)
    torch.testing.assert_close(o, -w.detach(), atol=0.03, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_close_to_float32(shape):
    x = matrix(*shape)
    torch.testing.assert_close(orthogonalise(x.bfloat16()).float(), orthogonalise(x), atol=0.05, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_of_one_is_the_matrix_alone(shape):
    x = matrix(*shape)[:1].bfloat16()
    assert torch.equal(orthogonalise(x)[0], orthogonalise(x[0]))
