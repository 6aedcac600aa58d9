"""A rule for each group of parameters: each part goes as it would alone, whatever the others are."""

from __future__ import annotations

import fnmatch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import known

from pisa_ray.algorithm import (
    NSISA,
    PISA,
    SISA,
    SISAD,
    Admm,
    Auto,
    Groups,
    Layout,
    Message,
    RowLayout,
    Task,
    TrimmedMean,
    Update,
    trimmed,
)
from pisa_ray.errors import ConfigError

SHAPES = [("emb", (5, 4), False), ("a.w", (4, 4), True), ("a.b", (4,), False), ("c.w", (3, 4), True), ("s", (), False),
          ("none", (0, 3), True), ("head", (2, 4), True), ("head.b", (2,), False)]  # fmt: skip
LAYOUT = Layout.of(SHAPES, heads=["head"])
RULES = st.sampled_from(
    [
        PISA(sigma=3, rho=2, lam=0.1),
        SISA(sigma=2, rho=5),
        SISAD(sigma=30, rho=270, lam=0.01),
        NSISA(sigma=20, rho=80, rest=None, lam=0.2),
        NSISA(sigma=10, rho=40, rest=SISAD(sigma=30, rho=570)),
    ]
)


def rounds(
    method: Admm, layout: Layout, w: torch.Tensor, gradients: torch.Tensor, sigmas: list[float], E: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """A few rounds of one shard; returns w and the dual at the end."""
    w = method.first_consensus(w, layout)
    rows = RowLayout(layout.size, method.penalties(layout).size)
    shard, row = method.initial_state(w, layout), w.new_empty(rows.width)
    for r, sigma in enumerate(sigmas):
        given = iter(gradients[r * E : r * E + E])
        task = Task(w, lambda given=given: known(next(given).clone())(), sigma, layout, steps=E)
        method.step(shard, task, rows.split(row))
        rows.complete(row, 0.3, w[:0])
        out = torch.empty_like(w)
        method.update(Update(rows.split(row), w, sigma, layout, out), torch.empty(0))
        w = out
    return w, shard.dual


@given(st.lists(RULES, min_size=4, max_size=4), st.integers(0, 99), st.integers(1, 3))
def test_each_group_goes_as_it_would_alone(rules: list, seed: int, E: int) -> None:
    names = {"a.*": rules[0], "matrices": rules[1], "vectors": rules[2], "rest": rules[3]}
    method = Groups(groups=names, local_steps=E)
    random = torch.Generator().manual_seed(seed)
    w = torch.randn(LAYOUT.size, generator=random)
    gradients = torch.randn(3 * E, LAYOUT.size, generator=random)
    growth = [1.0, 1.5, 1.7]

    together, dual = rounds(method, LAYOUT, w, gradients, [rules[0].sigma * x for x in growth], E)

    for name, rule in names.items():
        slots = [slot for slot in LAYOUT.slots if method.group_of(slot) == name]
        alone = Layout.of(
            [(slot.name, slot.shape, slot.matrix) for slot in slots], [slot.name for slot in slots if slot.head]
        )
        entries = torch.cat([torch.arange(LAYOUT.size)[slot.part] for slot in slots])
        sigmas = [rules[0].sigma * x * (1.0 if rule is rules[0] else rule.sigma / rules[0].sigma) for x in growth]
        its = Groups(groups={"rest": rule}, local_steps=E)
        expected, its_dual = rounds(its, alone, w[entries], gradients[:, entries], sigmas, E)
        torch.testing.assert_close(together[entries], expected, rtol=2e-6, atol=1e-7)
        torch.testing.assert_close(dual[entries], its_dual, rtol=2e-6, atol=1e-7)


def test_one_group_of_all_is_the_rule_itself_to_the_bit() -> None:
    random = torch.Generator().manual_seed(1)
    w, gradients = torch.randn(LAYOUT.size, generator=random), torch.randn(3, LAYOUT.size, generator=random)
    for rule in (
        PISA(sigma=3, rho=2),
        SISA(sigma=2, rho=5),
        SISAD(sigma=30, rho=270),
        NSISA(sigma=20, rho=80, rest=None),
    ):
        one = rounds(rule, LAYOUT, w, gradients, [rule.sigma] * 3)
        other = rounds(Groups(groups={"rest": rule}), LAYOUT, w, gradients, [rule.sigma] * 3)
        assert all(map(torch.equal, one, other))


def test_nsisa_is_two_groups_to_the_bit() -> None:
    random = torch.Generator().manual_seed(2)
    w, gradients = torch.randn(LAYOUT.size, generator=random), torch.randn(3, LAYOUT.size, generator=random)
    both = NSISA(sigma=20, rho=80, rest=SISAD(sigma=30, rho=570))
    groups = Groups(groups={"matrices": NSISA(sigma=20, rho=80, rest=None), "rest": SISAD(sigma=30, rho=570)})
    sigmas = [20.0, 25.0, 31.0]
    assert all(
        map(torch.equal, rounds(both, LAYOUT, w, gradients, sigmas), rounds(groups, LAYOUT, w, gradients, sigmas))
    )
    moved = {part.path: [slot.name for slot in part.slots] for part in both.plan(LAYOUT).parts}
    assert moved == {"": ["a.w", "c.w", "none"], "rest.": ["emb", "a.b", "s", "head", "head.b"]} or moved[""] == [
        "a.w",
        "c.w",
    ]


def test_penalties_are_one_number_a_rule_or_a_vector_of_its_entries() -> None:
    sizes = {
        PISA(): 1,
        SISAD(): LAYOUT.size,
        NSISA(rest=None): 1,
        NSISA(): 1 + LAYOUT.size - 16 - 12,
        Groups(groups={"matrices": SISA(), "heads": PISA(), "rest": SISAD()}): 2 + LAYOUT.size - 16 - 12 - 8,
    }
    assert {method: method.penalties(LAYOUT).size for method in sizes} == sizes
    penalties = Groups(groups={"matrices": SISA(), "heads": PISA(), "rest": SISAD()}).penalties(LAYOUT)
    spread = penalties.spread(torch.arange(float(penalties.size)))
    assert len(spread[20:36].unique()) == len(spread[40:52].unique()) == 1
    assert torch.equal(spread[20], spread[40])
    assert len(spread.unique()) == penalties.size
    assert torch.equal(PISA().penalties(LAYOUT).spread(torch.ones(1)), torch.ones(1))


def test_a_robust_mean_of_mixed_penalties_is_by_entry() -> None:
    """Of equal messages it is the plain mean."""
    method = NSISA(sigma=20, rho=80, rest=SISAD(sigma=30, rho=570))
    penalties = method.penalties(LAYOUT)
    rows = RowLayout(LAYOUT.size, penalties.size)
    row = torch.rand(rows.width) + 0.1
    row[LAYOUT.size + penalties.size] = 1
    said = [rows.split(row * 0.25) for _ in range(4)]
    spread = [Message(m.N, penalties.spread(m.M), m.buffers, m.weight, m.norms) for m in said]
    plain, robust = torch.empty(2, LAYOUT.size)
    method.update(Update(rows.split(row), row, 1.0, LAYOUT, plain), row[:0])
    method.update(Update(trimmed(spread, TrimmedMean(0.25).dropped(4)), row, 1.0, LAYOUT, robust), row[:0])
    torch.testing.assert_close(plain, robust)


def test_the_first_group_that_selects_a_parameter_has_it_and_none_freezes() -> None:
    big = (lambda slot: slot.size > 15, SISA(sigma=1, rho=1))
    method = Groups(groups={"big": big, "head*": None, "vectors": PISA(sigma=1, rho=1), "c.?": SISAD()})
    groups = {slot.name: method.group_of(slot) for slot in LAYOUT.slots if slot.size}
    assert groups == {
        "emb": "big", "a.w": "big", "a.b": "vectors", "c.w": "c.?", "s": "vectors", "head": "head*", "head.b": "head*",
    }  # fmt: skip
    assert method.frozen(LAYOUT) == ["head", "head.b"]
    torch_compiled = Layout.of((f"_orig_mod.{name}", shape, matrix) for name, shape, matrix in SHAPES)
    assert method.frozen(torch_compiled) == ["_orig_mod.head", "_orig_mod.head.b"]
    assert fnmatch.fnmatchcase("c.w", "c.?")


def test_lambda_is_of_a_group() -> None:
    method = Groups(groups={"vectors": PISA(sigma=4, rho=1), "rest": PISA(sigma=4, rho=1, lam=1.0)})
    w = torch.ones(LAYOUT.size)
    vectors = [slot.part for slot in LAYOUT.slots if len(slot.shape) < 2]
    shrunk, pull = method.first_consensus(w, LAYOUT), method.shrinkage(w, LAYOUT)
    assert all((shrunk[part] == 1).all() and not pull[part].any() for part in vectors)
    assert shrunk[0] == pytest.approx(0.8)
    assert pull[0] == 1


def test_numbers_are_set_by_path() -> None:
    method = Groups(groups={"matrices": NSISA(), "a.b": SISAD(), "own": (lambda slot: True, SISA())})
    found = {"matrices.sigma": 5.0, "matrices.rest.rho": 3.0, "a.b.sigma": 2.0, "own.rho": 7.0}
    now = method.with_numbers(found)
    assert now.groups["matrices"] == NSISA(sigma=5.0, rest=SISAD(rho=3.0))
    assert now.groups["a.b"] == SISAD(sigma=2.0)
    assert now.groups["own"][1] == SISA(rho=7.0)
    assert set(now.rules()) == {"matrices.", "matrices.rest.", "a.b.", "own."}
    assert isinstance(method.sigma, Auto)
    assert now.sigma == 5.0
    for wrong in ({"rest.sigma": 1.0}, {"matrices.beta0": 1.0}, {"sigma": 1.0}):
        with pytest.raises(KeyError):
            method.with_numbers(wrong)
    with pytest.raises(KeyError):
        NSISA(rest=None).with_numbers({"rest.sigma": 1.0})


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Groups(groups={}), "Groups.groups has no group with a rule"),
        (lambda: Groups(groups={"rest": None}), "Groups.groups has no group with a rule"),
        (lambda: Groups(groups=[SISAD()]), "a dictionary of rules by group"),
        (lambda: Groups(groups={"rest": SISAD}), "a method such as SISAD"),
        (lambda: Groups(groups={"rest": 3}), "a method such as SISAD"),
        (lambda: Groups(groups={"rest": SISAD(local_steps=2)}), "hold for all parameters"),
        (lambda: Groups(groups={"rest": NSISA(rest=SISAD(reset_duals=True))}), "hold for all parameters"),
        (lambda: NSISA(rest=SISAD(local_steps=2)), "rest has local_steps"),
        (lambda: NSISA(rest=NSISA()), "rest is NSISA"),
        (lambda: NSISA(precision="float16"), "precision is 'float16'"),
        (lambda: Groups(groups={"matrices": SISAD()}).check(LAYOUT), r"the parameter emb \(5, 4\) is in none"),
        (lambda: Groups(groups={"x.*": SISAD(), "rest": SISA()}).frozen(LAYOUT), "\\['x.\\*'\\] has none of"),
        (lambda: Groups(groups={"encodr.*": None, "rest": SISA()}).frozen(LAYOUT), "groups\\['encodr"),
        (lambda: Groups(groups={"none": SISA(), "rest": SISA()}).frozen(LAYOUT), "\\['none'\\] has none of"),
    ],
)  # fmt: skip
def test_wrong_groups_are_refused(make, text) -> None:
    with pytest.raises(ConfigError, match=text):
        make()


@pytest.mark.parametrize("names", [["*", "*.bias"], ["*.bias", "*"], ["blocks.*.bias", "blocks.*", "blocks"]])
def test_names_that_begin_with_others_keep_their_numbers_apart(names) -> None:
    method = Groups(groups={name: NSISA(rest=SISAD()) for name in names})
    found = {path + key: float(k + 1) for k, path in enumerate(method.rules()) for key in ("sigma", "rho")}
    now = method.with_numbers(found)
    assert {path + key: getattr(rule, key) for path, rule in now.rules().items() for key in ("sigma", "rho")} == found
