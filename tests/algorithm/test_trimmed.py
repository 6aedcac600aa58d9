"""Robust means by hand, against a loop over coordinates, and what they promise; the clipped dual."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import known

from pisa_ray.algorithm import (
    PISA,
    Clip,
    DualState,
    Layout,
    Median,
    RowLayout,
    StandingSum,
    Task,
    TrimmedMean,
    clip_dual,
    consensus,
    robust,
    trimmed,
)


def row(layout, z, penalty, alpha, buffers=()):
    """A message that proposes z with a penalty."""
    leaf = torch.zeros(layout.width)
    message = layout.split(leaf)
    message.M.copy_(torch.as_tensor(penalty, dtype=torch.float32))
    message.N.copy_(torch.tensor(z) * message.M)
    return layout.complete(leaf, alpha, torch.tensor(buffers, dtype=torch.float32))


def solve(rows, layout, kind, lam=0.0):
    total = trimmed([layout.split(r) for r in rows], kind.dropped(len(rows)))
    return consensus(total, lam, torch.empty(layout.parameters)), total


def test_the_median_of_three_by_hand():
    layout = RowLayout(2, buffers=1)
    proposals, alpha = [(1.0, 10.0), (5.0, -1.0), (3.0, 0.0)], (0.5, 0.3, 0.2)
    rows = [row(layout, z, 2.0, a, [b]) for z, a, b in zip(proposals, alpha, (7.0, 1e9, 8.0), strict=True)]
    w, total = solve(rows, layout, Median())
    torch.testing.assert_close(w, torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(total.buffers, torch.tensor([8.0]))
    assert float(total.weight) == 1
    w, _ = solve(rows, layout, Median(), lam=1.0)  # shrunk by 2 / (2 + 1)
    torch.testing.assert_close(w, torch.tensor([2.0, 0.0]))


def test_the_median_of_four_weighs_the_two_in_the_middle():
    layout = RowLayout(1, penalties=1)
    rows = [row(layout, [z], [s], 0.25) for z, s in ((0.0, 100.0), (1.0, 1.0), (2.0, 3.0), (9.0, 50.0))]
    w, total = solve(rows, layout, Median(), lam=2.0)
    torch.testing.assert_close(w, torch.tensor([(1 * 1 + 2 * 3) / (1 + 3 + 2 * 2.0)]))
    torch.testing.assert_close(total.M, torch.tensor([2.0]))


def test_the_trimmed_mean_of_five_by_hand():
    """Every coordinate leaves out others; penalties and alphas weigh what stays."""
    layout = RowLayout(2, penalties=2)
    z = [(1.0, 5.0), (2.0, 4.0), (300.0, 3.0), (4.0, 2.0), (5.0, -100.0)]
    s = [(1.0, 2.0), (1.0, 2.0), (1.0, 2.0), (3.0, 2.0), (1.0, 2.0)]
    alpha = [0.1, 0.2, 0.3, 0.2, 0.2]
    w, _ = solve([row(layout, *m) for m in zip(z, s, alpha, strict=True)], layout, TrimmedMean(0.2))
    first = (0.2 * 1 * 2 + 0.2 * 3 * 4 + 0.2 * 1 * 5) / (0.2 + 0.6 + 0.2)  # without shards 0 and 2
    second = (0.2 * 4 + 0.3 * 3 + 0.2 * 2) / 0.7  # without shards 4 and 0
    torch.testing.assert_close(w, torch.tensor([first, second]))


@pytest.mark.parametrize("penalty", [-2.0, 0.0, math.nan])
def test_a_message_without_a_positive_weight_is_no_proposal(penalty):
    """It is left out first, whatever it proposes: its quotient may look honest."""
    layout = RowLayout(1)
    rows = [row(layout, [z], 1.0, 0.25) for z in (1.0, 2.0, 4.0)]
    bad = row(layout, [2.0], penalty, 0.25)
    w, _ = solve([*rows, bad], layout, TrimmedMean(0.25))
    torch.testing.assert_close(w, torch.tensor([3.0]))


def test_how_many_are_left_out():
    assert [TrimmedMean(0.2).dropped(m) for m in (1, 4, 5, 10, 14, 15)] == [0, 0, 1, 2, 2, 3]
    assert TrimmedMean(0.29).dropped(100) == 29  # 0.29 * 100 is 28.999... in floating point
    assert [TrimmedMean(0.4999999999).dropped(m) for m in (1, 2, 3)] == [0, 0, 1]
    assert [Median().dropped(m) for m in (1, 2, 3, 4, 5)] == [0, 0, 1, 1, 2]
    for share in (-0.1, 0.5, math.nan):
        with pytest.raises(ValueError, match=r"a number of at least 0 and below 0\.5"):
            TrimmedMean(share)
    for factor in (0, -1, math.inf):
        with pytest.raises(ValueError, match="finite number above 0"):
            Clip(factor)


def cases(data, shards):
    """Messages of random layouts and penalties; proposals have many ties, and some signs of zero."""
    p = data.draw(st.integers(1, 6))
    layout = RowLayout(p, data.draw(st.sampled_from([1, p])), data.draw(st.integers(0, 2)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    weights = torch.rand(shards, generator=generator) + 0.05
    spread = data.draw(st.sampled_from([2, 1000]))

    def draw(size):
        return torch.randint(-spread, spread + 1, (size,), generator=generator).float() * torch.tensor(0.5)

    rows = []
    for alpha in (weights / weights.sum()).tolist():
        penalty = 2.0 ** torch.randint(-2, 3, (layout.penalties,), generator=generator)
        rows.append(row(layout, draw(layout.parameters).tolist(), penalty, alpha, draw(layout.buffers).tolist()))
    return layout, rows


@settings(max_examples=150, deadline=None)
@given(data=st.data(), shards=st.integers(1, 9), share=st.sampled_from([0.0, 0.1, 0.2, 0.34, 0.45, None]))
def test_robust_means_against_a_loop(data, shards, share):
    layout, rows = cases(data, shards)
    kind, lam = Median() if share is None else TrimmedMean(share), data.draw(st.sampled_from([0.0, 0.7]))
    w, total = solve(rows, layout, kind, lam)
    messages, d = [layout.split(r) for r in rows], kind.dropped(shards)
    for j in range(layout.parameters):
        said = [(m.N[j], m.M[j] if layout.penalties > 1 else m.M[0], m.weight[0]) for m in messages]
        stay = sorted(said, key=lambda x: float(x[0] / x[1]))[d : shards - d]  # stable, as ours must be
        n, penalty, alpha = (sum(map(float, part)) for part in zip(*stay, strict=True))
        assert float(w[j]) == pytest.approx(n / (penalty + lam * alpha), rel=1e-5, abs=1e-3)
        if not lam:
            z = [float(x[0] / x[1]) for x in stay]
            slack = 1e-5 * max(map(abs, z))
            assert min(z) - slack <= float(w[j]) <= max(z) + slack
    for j in range(layout.buffers):
        entries = sorted(float(m.buffers[j] / m.weight) for m in messages)[d : shards - d]
        assert entries[0] - 1e-3 <= float(total.buffers[j]) <= entries[-1] + 1e-3


@settings(max_examples=100, deadline=None)
@given(data=st.data(), shards=st.integers(1, 9))
def test_nothing_left_out_is_the_plain_consensus_to_rounding(data, shards):
    layout, rows = cases(data, shards)
    lam = data.draw(st.sampled_from([0.0, 0.3]))
    standing = StandingSum(shards)
    for i, message in enumerate(rows):
        standing.put(i, message)
    plain = layout.split(standing.total())
    w, total = solve(rows, layout, TrimmedMean(0.0), lam)
    torch.testing.assert_close(w, consensus(plain, lam, torch.empty_like(w)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(total.buffers, plain.buffers / plain.weight, rtol=1e-4, atol=1e-4)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), shards=st.integers(1, 9), dice=st.randoms(use_true_random=False))
def test_neither_arrival_nor_the_size_of_blocks_changes_a_bit(data, shards, dice):
    layout, rows = cases(data, shards)

    def bits(order, entries):
        standing = StandingSum(shards)
        for i in order:
            standing.put(i, rows[i])
        messages = [layout.split(standing.row(i)) for i in standing.heard()]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(robust, "ENTRIES", entries)
            total = trimmed(messages, Median().dropped(shards))
        return torch.cat([total.N, total.M, total.buffers]).numpy().tobytes()

    order = list(range(shards))
    first = bits(order, 1 << 20)
    dice.shuffle(order)
    assert bits(order, dice.choice([1, shards, 3 * shards])) == first


# The clipped dual


def stepped(limit, g, before=(0.0, 0.0)):
    """A step of PISA with theta 1 (the dual becomes -g), clipped."""
    layout, rows, pisa = Layout.of([("w", (2,), False)]), RowLayout(2, norms=3), PISA(sigma=2.0, rho=0.0)
    w, message = torch.tensor([10.0, 20.0]), rows.split(torch.zeros(rows.width))
    task = Task(w, known(torch.tensor(g)), 2.0, layout, gap=torch.empty(2))
    shard = DualState(dual=torch.tensor(before))
    pisa.step(shard, task, message)
    unclipped = [x.clone() for x in (shard.dual, message.N, task.gap)]
    norm = clip_dual(shard, torch.tensor(before), task, message, message.M, limit)
    return norm, (shard.dual, message.N, task.gap), unclipped, message


def test_a_dual_that_moves_too_far_is_held_back_with_its_message():
    norm, (dual, N, gap), _, message = stepped(1.0, (-4.0, -6.0), before=(1.0, 2.0))
    assert norm == 5
    torch.testing.assert_close(dual, torch.tensor([1.6, 2.8]))  # (1, 2) + (3, 4) / 5
    torch.testing.assert_close(N, torch.tensor([20 + 1.6 + 0.6, 40 + 2.8 + 0.8]))  # s w + pi' + move
    torch.testing.assert_close(gap, torch.tensor([0.3, 0.4]))  # move / s
    assert float(message.M) == 2
    _, (dual, N, gap), *_ = stepped(0.0, (3.0, 4.0))  # round 1: nothing moves
    assert dual.tolist() == gap.tolist() == [0, 0]
    assert N.tolist() == [20, 40]


@pytest.mark.parametrize("g", [(3.0, 4.0), (math.inf, 1.0), (math.nan, 1.0)])
def test_what_moves_within_the_limit_or_is_not_finite_is_left_as_it_is(g):
    _, clipped, unclipped, _ = stepped(5.0, g)
    for one, other in zip(clipped, unclipped, strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()


def test_the_limit_is_a_multiple_of_the_median():
    assert Clip(3.0).limit([1.0, 1e9, 2.0]) == 6
    assert Clip(2.0).limit([1.0, 2.0, 4.0, 1e9]) == 6
