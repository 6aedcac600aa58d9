"""The tree sum: any grouping, any order of arrival, the same bits; and state as a value."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import state_sha256

from pisa_ray.algorithm import NSISA, Layout, RowLayout, TreeSum, consensus


def rows(m: int, width: int = 5, seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(width, generator=random) * 10 ** float(torch.randn(1, generator=random)) for _ in range(m)]


def by_definition(leaves: list[torch.Tensor], level: int, index: int) -> torch.Tensor | None:
    """Node [a, a + 2^k) = left + right; an absent child is skipped."""
    if level == 0:
        return leaves[index] if index < len(leaves) else None
    left, right = (by_definition(leaves, level - 1, 2 * index + k) for k in (0, 1))
    return left if right is None else left + right


@settings(deadline=None)
@given(st.integers(1, 40), st.randoms(use_true_random=False), st.integers(1, 6))
def test_any_grouping_in_any_order_gives_the_same_bits(m, random, workers):
    leaves = rows(m)
    expected = by_definition(leaves, (m - 1).bit_length(), 0)
    groups = [[] for _ in range(workers)]
    for shard in range(m):
        groups[random.randrange(workers)].append(shard)
    arriving = []
    for group in groups:
        part = TreeSum(m)
        random.shuffle(group)
        for shard in group:
            row = part.buffer(5, leaves[shard])
            row.copy_(leaves[shard])
            part.add((0, shard), row, owned=True)
        arriving += [(node, row.clone()) for node, row in part.nodes().items()]
        part.clear()
    random.shuffle(arriving)
    total = TreeSum(m)
    for round_ in range(2):  # rows are reused in the second round
        for node, row in arriving:
            before = row.clone()
            total.add(node, row)
            assert torch.equal(row, before)  # what arrives is only read
        assert torch.equal(total.total(), expected), round_
        total.clear()


@given(st.integers(1, 64), st.integers(1, 8))
def test_contiguous_shards_need_few_nodes(m, workers):
    for worker in range(workers):
        first, last = worker * m // workers, (worker + 1) * m // workers
        part = TreeSum(m)
        for shard in range(first, last):
            part.add((0, shard), torch.ones(1))
        assert len(part.nodes()) <= 2 * max(1, m.bit_length())
        assert sum(float(row) for row in part.nodes().values()) == last - first


def test_rows_are_reused():
    tree, leaves = TreeSum(8), rows(8)
    seen = set()
    for _ in range(5):
        for shard, leaf in enumerate(leaves):
            row = tree.buffer(5, leaf)
            row.copy_(leaf)
            tree.add((0, shard), row, owned=True)
        tree.total()
        tree.clear()
        seen.add(frozenset(row.data_ptr() for row in tree._spare))
    assert len(seen) == 1
    assert len(tree._spare) <= 5


def test_rows_that_were_lent_are_never_overwritten():
    tree, row = TreeSum(1), torch.ones(3)
    tree.add((0, 0), row)
    assert tree.total() is row
    tree.clear()
    assert tree.buffer(3, row).data_ptr() != row.data_ptr()


def test_overlaps_and_unequal_rows_are_refused():
    tree = TreeSum(4)
    tree.add((0, 0), torch.ones(1))
    with pytest.raises(ValueError, match="overlaps"):
        tree.add((1, 0), torch.ones(1))
    with pytest.raises(ValueError, match="cannot be added"):
        tree.add((0, 1), torch.ones(3))


def test_a_leaf_is_weighed_once_and_carries_everything():
    layout = RowLayout(3, 1, 2)
    row = torch.zeros(layout.width)
    message = layout.split(row)
    message.N.copy_(torch.tensor([1.0, 2.0, 3.0]))
    message.M.fill_(4.0)
    layout.complete(row, 0.1, torch.tensor([5.0, 6.0]))
    expected = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0]) * torch.tensor(0.1)
    assert torch.equal(row, expected)


@pytest.mark.parametrize("node", [(0, 5), (-1, 0), (4, 0), (2, 2), (0, -1)])
def test_foreign_nodes_are_refused(node):
    with pytest.raises(ValueError, match="not in the tree"):
        TreeSum(5).add(node, torch.ones(1))


def test_repeated_and_missing_nodes_are_refused():
    tree = TreeSum(4)
    tree.add((0, 0), torch.ones(1))
    with pytest.raises(ValueError, match="added already"):
        tree.add((0, 0), torch.ones(1))
    tree.add((0, 1), torch.ones(1))
    with pytest.raises(ValueError, match="added already"):
        tree.add((0, 1), torch.ones(1))
    with pytest.raises(ValueError, match="not complete"):
        tree.total()


def test_row_parts_cover_the_row_and_consensus_divides():
    layout = RowLayout(3, 3, 2)
    row = torch.arange(float(layout.width))
    message = layout.split(row)
    assert torch.cat([message.N, message.M, message.buffers, message.weight]).equal(row)
    w = consensus(message, lam=0.5, out=torch.empty(3))
    torch.testing.assert_close(w, row[:3] / (row[3:6] + 0.5 * row[8]))
    scalar = RowLayout(3).split(torch.tensor([2.0, 4.0, 6.0, 1.5, 1.0]))
    torch.testing.assert_close(consensus(scalar, 0.5, torch.empty(3)), torch.tensor([1.0, 2.0, 3.0]))


def test_state_saves_hashes_and_moves_every_field():
    torch.manual_seed(0)
    layout = Layout.of([("a", (2, 3), True), ("b", (4,), False)])
    method, w = NSISA(), torch.zeros(10)
    state, copy = method.initial_state(w, layout), method.initial_state(w, layout)
    state.said, copy.said = torch.zeros(12), torch.zeros(12)
    for tensor in state.tensors().values():
        tensor.normal_()
    state.reports = 7
    assert set(state.tensors()) == {"dual", "moment", "momentum", "said"}
    assert state_sha256(copy) != state_sha256(state)
    copy.load(state.tensors(), state.scalars())
    assert state_sha256(copy) == state_sha256(state) == state_sha256(deepcopy(state))
    for name in state.tensors():
        other = deepcopy(state)
        getattr(other, name)[3] += 1
        assert state_sha256(other) != state_sha256(state), name
    copy.reports += 1
    assert state_sha256(copy) != state_sha256(state)
    with pytest.raises(ValueError, match="has fields"):
        copy.load({"dual": w}, {"reports": 1, "version": 1})
    with pytest.raises(ValueError, match=r"dual is \(10,\)"):
        copy.load({**state.tensors(), "dual": torch.zeros(3)}, {"reports": 1, "version": 1})
    with pytest.raises(ValueError, match="float64"):
        copy.load({**state.tensors(), "dual": torch.zeros(10).double()}, {"reports": 1, "version": 1})
    copy.load(state.tensors(), state.scalars())
    copy.dual.zero_()
    assert state.dual.any()
    before = state_sha256(copy)
    with pytest.raises(ValueError, match="momentum is"):
        copy.load({**state.tensors(), "momentum": torch.zeros(3)}, {"reports": 1, "version": 1})
    assert state_sha256(copy) == before


@given(st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=6))
def test_layout_views_cover_the_flat_vector_in_order(shapes):
    layout = Layout.of((str(i), tuple(shape), False) for i, shape in enumerate(shapes))
    flat = torch.arange(float(layout.size))
    views = layout.views(flat)
    assert torch.cat([v.flatten() for v in views.values()]).equal(flat)
    assert [tuple(v.shape) for v in views.values()] == [tuple(s) for s in shapes]
