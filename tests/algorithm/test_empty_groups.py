"""Groups that would have nothing, and functions that do not select: each is refused for its own reason."""

import pytest
import torch
from torch import nn

from pisa_ray import NSISA, SISAD, ConfigError, Groups
from pisa_ray.algorithm.layout import layout_of


def net():
    return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)))


def refusal(groups):
    try:
        method = Groups(groups=groups)
        method.frozen(layout_of(net()))
        method.check(layout_of(net()))
    except ConfigError as error:
        return str(error)
    pytest.fail("nothing was refused")


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (
            {"1.*": SISAD(), "1.weight": SISAD(), "rest": SISAD()},
            "Groups.groups['1.weight'] has no parameter left, as '1.*' before it have all, such as 1.weight: put it "
            "before '1.*', or leave it out.",
        ),
        (
            {"rest": SISAD(), "embeddings": SISAD()},
            "Groups.groups['embeddings'] has no parameter left, as 'rest' before it have all, such as 0.weight: put it "
            "before 'rest', or leave it out.",
        ),
        (
            {"*": SISAD(), "rest": SISAD()},
            "has no parameter left, as '*' before it have all, such as 2.1.bias: leave it out.",
        ),
        (
            {"Vectors": SISAD(), "rest": SISAD()},
            "has none of the parameters that are trained: the nearest name is 'vectors'.",
        ),
        ({"encoder.*": SISAD(), "rest": SISAD()}, "has none of the parameters that are trained: there are 0.weight, "),
        (
            {"vectors": NSISA(), "rest": SISAD()},
            "Groups.groups['vectors'] has the rule NSISA, which would move none of its",
        ),
        (
            {"x": (lambda slot: slot.nothing, SISAD()), "rest": SISAD()},
            "selects by a function that raises AttributeError",
        ),
        (
            {"x": (lambda slot: "no", SISAD()), "rest": SISAD()},
            "selects by a function that returns 'no' for the parameter",
        ),
        (
            {"x": (lambda slot: None, SISAD()), "rest": SISAD()},
            "selects by a function that returns None for the parameter",
        ),
        ({"vectors": None, "rest": None}, "so nothing would be trained"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ", ".join(value),
)
def test_each_for_its_own_reason(groups, sentence):
    assert sentence in refusal(groups)


@pytest.mark.parametrize("true", [True, torch.tensor(True)], ids=repr)
def test_what_is_true_selects(true):
    layout = layout_of(net())
    method = Groups(groups={"all": (lambda slot: true, SISAD(sigma=1, rho=1))})
    method.check(layout)
    assert method.frozen(layout) == []


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.gain = nn.Parameter(torch.zeros(8, 1))
        self.places = nn.Parameter(torch.zeros(6, 8))
        self.out = nn.Linear(8, 1)


def test_a_matrix_of_one_row_or_column_is_a_vector_but_for_the_paper():
    layout = layout_of(Tokens())
    groups = Groups(groups={name: SISAD() for name in ("matrices", "heads", "vectors")})
    found = {slot.name: groups.group_of(slot) for slot in layout.slots}
    assert found == {
        "token": "vectors",
        "gain": "vectors",
        "places": "matrices",
        "out.weight": "heads",
        "out.bias": "vectors",
    }
    assert NSISA().moved(layout) == {"": ["places"], "rest.": ["token", "gain", "out.weight", "out.bias"]}
    (_, _, _, matrices), *_ = NSISA(rest=None).members(layout)
    assert [slot.name for slot in matrices] == ["token", "gain", "places", "out.weight"]
