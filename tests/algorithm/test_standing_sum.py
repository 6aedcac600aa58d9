"""The standing sum has the bits of a sum made from nothing, whoever has spoken, and never more work than its paths."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pisa_ray.algorithm import StandingSum, TreeSum, standing_sum


def from_nothing(said: dict[int, torch.Tensor], shards: int) -> torch.Tensor:
    tree = TreeSum(shards)
    tree.expect(sorted(said))
    for i in sorted(said, reverse=True):
        tree.add((0, i), said[i])
    return tree.total()


@settings(max_examples=200, deadline=None)
@given(data=st.data(), shards=st.integers(1, 19))
def test_any_history_gives_the_bits_of_a_sum_made_from_nothing(data, shards):
    standing, said = StandingSum(shards), {}
    generator = torch.Generator().manual_seed(shards)
    for _ in range(data.draw(st.integers(1, 8))):
        for i in data.draw(st.lists(st.integers(0, shards - 1), max_size=6)):
            if i in said and data.draw(st.booleans()):
                standing.drop(i)
                del said[i]
            else:
                said[i] = torch.randn(5, generator=generator) * 10.0 ** (i % 7 - 3)
                row = said[i].clone()
                standing.put(i, row)
                row.fill_(float("nan"))  # it was copied
        assert standing.heard() == sorted(said)
        if said:
            assert torch.equal(standing.total(), from_nothing(said, shards))
            assert torch.equal(standing.total(), from_nothing(said, shards))
        else:
            with pytest.raises(ValueError, match="no shard has a message in the sum yet"):
                standing.total()


def test_a_message_costs_one_path_of_additions(monkeypatch):
    standing = StandingSum(1000)
    for i in range(1000):
        standing.put(i, torch.full((3,), float(i)))
    standing.total()
    additions = []
    add = torch.add
    monkeypatch.setattr(standing_sum.torch, "add", lambda *a, **k: additions.append(1) or add(*a, **k))
    standing.put(123, torch.zeros(3))
    standing.total()
    assert 0 < len(additions) <= 10
    additions.clear()
    assert float(standing.total()[0]) == sum(range(1000)) - 123
    assert not additions


@settings(max_examples=100, deadline=None)
@given(data=st.data(), shards=st.integers(1, 9), more=st.integers(0, 12))
def test_a_sum_that_has_grown_has_the_bits_of_one_that_was_as_large_from_the_first(data, shards, more):
    standing, said = StandingSum(shards), {}
    generator = torch.Generator().manual_seed(shards)

    def speak(most):
        for i in data.draw(st.lists(st.integers(0, most - 1), max_size=6)):
            if i in said and data.draw(st.booleans()):
                standing.drop(i)
                del said[i]
            else:
                said[i] = torch.randn(5, generator=generator)
                standing.put(i, said[i])

    speak(shards)
    if said and data.draw(st.booleans()):
        standing.total()
    for size in (shards, shards + more, shards + more):
        standing.grow(size)
        if said:
            assert torch.equal(standing.total(), from_nothing(said, size))
        speak(size)
        if said and data.draw(st.booleans()):
            assert torch.equal(standing.total(), from_nothing(said, size))
