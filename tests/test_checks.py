"""Rules for arguments: what they take, what they make of it, and the sentence where they refuse it."""

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from pisa_ray import SISA, ConfigError, checks
from pisa_ray.fields import Count
from pisa_ray.options import Options

NUMBERS = [2, 2.0, np.float64(2), np.float32(2), np.int64(2), np.uint8(2), np.array(2.0), np.longdouble(2)]
NUMBERS += [torch.tensor(2.0), torch.tensor(2), torch.tensor(2.0, requires_grad=True), Fraction(2)]


@pytest.mark.parametrize("given", NUMBERS, ids=repr)
def test_a_number_of_any_kind_becomes_pythons_own(given):
    taken = checks.number(above=0)("x", given), checks.whole(least=0)("x", given)
    assert taken == (2.0, 2)
    assert [type(value) for value in taken] == [float, int]


@pytest.mark.parametrize("given", [True, np.True_, torch.tensor(True)])
def test_truth_values_are_flags_and_no_numbers(given):
    assert checks.flag("x", given) is True
    for rule in (checks.number(), checks.whole()):
        with pytest.raises(ConfigError, match=r"^x is True, but it must be"):
            rule("x", given)


NONE = [None, "2", b"2", [2], (2,), {2}, {"a": 2}, np.array([2.0]), torch.ones(1), 2j, np.complex64(2), object(), int]
NONE += [math.nan, np.float64("nan"), math.inf, -math.inf, 10**400, torch.zeros((), device="meta")]


@pytest.mark.parametrize("given", NONE, ids=lambda given: type(given).__name__)
def test_what_is_no_number_is_refused_in_one_sentence(given):
    for rule in (checks.number(), checks.whole()):
        with pytest.raises(ConfigError, match=r"^x is [^\n]*, but it must be [^\n]*\.$"):
            rule("x", given)


@pytest.mark.parametrize(
    ("rule", "given", "sentence"),
    [
        (checks.number(above=0), 0, "x is 0, but it must be a finite number above 0."),
        (checks.number(least=0, below=1), 1.0, "x is 1.0, but it must be a number of at least 0 and below 1."),
        (checks.number(above=0, infinite=True), -1, "x is -1, but it must be a number above 0."),
        (checks.number(most=3), 4, "x is 4, but it must be a finite number of at most 3."),
        (checks.whole(least=1), 2.5, "x is 2.5, but it must be a whole number of at least 1."),
        (checks.whole(least=1, most=9), 10, "x is 10, but it must be a whole number of at least 1 and at most 9."),
        (checks.whole(), 2**63, "x is 9223372036854775808, but it must be below 2**63."),
        (checks.whole() | checks.nothing, "a", "x is 'a', but it must be a whole number or None."),
        (checks.flag, 1, "x is 1, but it must be True or False."),
        (checks.choice("size", "uniform"), "sise", "x is 'sise', but it must be 'size' or 'uniform'."),
        (checks.function, 3, "x is 3, but it must be a function."),
        (checks.text, "", "x is '', but it must be a text."),
        (checks.path, "", "x is '', but it must be a path."),
        (checks.path, b"/a", "x is b'/a', but it must be a path."),
        (checks.instance("a method such as SISA()", SISA), SISA, "x is the class SISA, but it must be a method such"),
        (checks.instance("a method such as SISA()", SISA), torch.ones(3), "x is a Tensor, but it must be a method"),
        (checks.sequence(checks.number(), "a list"), [1, "b"], "x[1] is 'b', but it must be a finite number."),
        (checks.sequence(checks.number(), "a list"), {"a": 1}, "x is {'a': 1}, but it must be a list."),
        (checks.sequence(checks.number(), "a list"), torch.tensor(1.0), "x is 1.0, but it must be a list."),
        (checks.mapping(checks.text, "a dictionary"), {"a": 1}, "x['a'] is 1, but it must be a text."),
        (checks.mapping(checks.text, "a dictionary"), {1: "a"}, "x is {1: 'a'}, but it must be a dictionary."),
    ],
)
def test_sentences(rule, given, sentence):
    with pytest.raises(ConfigError) as error:
        rule("x", given)
    assert str(error.value).startswith(sentence)


def test_lists_arrays_and_tensors_of_numbers_are_tuples():
    rule = checks.sequence(checks.number(), "a list")
    for given in ([1, 2], (1, 2), np.array([1, 2]), torch.tensor([1.0, 2.0]), range(1, 3), {1: 0, 2: 0}.keys()):
        assert rule("x", given) == (1.0, 2.0)


def test_a_path_is_text_in_the_end():
    assert checks.path("x", Path("a") / "b") == "a/b"
    assert checks.path("x", np.str_("a")) == "a"


class Odd:
    def __repr__(self):
        raise RuntimeError


def test_any_value_can_be_shown():
    assert checks.shown(Odd()) == "an Odd"
    assert checks.shown([Odd()]).startswith("[<Odd instance at ")
    assert checks.shown(10**5000) == "an int"
    assert checks.shown("a" * 999).startswith("'aaa")
    assert len(checks.shown(list(range(10**6)))) < 80


def test_fields_of_a_frozen_dataclass_are_settled_under_its_name():
    @dataclass(frozen=True)
    class Thing(Options):
        size: Count

    assert type(Thing(np.int64(3)).size) is int
    with pytest.raises(ConfigError, match=r"^Thing\.size is 0, but"):
        Thing(0)
