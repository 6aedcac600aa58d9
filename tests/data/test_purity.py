"""An item of a torch data set that is fetched twice is the same, or the data set is refused."""

import random
from itertools import count

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from pisa_ray import ConfigError
from pisa_ray.data import open_source

X = torch.linspace(-1, 1, 200 * 4).view(200, 4)


class Items(Dataset):
    def __init__(self, item) -> None:
        self.item = item

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i):
        return self.item(i)


def flips(i):
    return (X[i].flip(0) if random.random() < 0.5 else X[i]), i % 3


def erases_seldom(i):
    return X[i] * float(torch.rand(()) > 0.1), i % 3


def seeded_by_the_item(i):
    torch.manual_seed(i)
    return X[i] + torch.randn(4), i % 3


_counter = count()


@pytest.mark.parametrize(
    "item",
    [
        flips,
        erases_seldom,
        lambda i: (X[i] + torch.randn(4), 0),
        lambda i: (X[i].numpy() + np.random.normal(size=4), 0),
        lambda i: (X[i] * np.random.default_rng().normal(), 0),
        lambda i: (X[i] + random.random(), 0),
        lambda i: (X[i] + next(_counter), 0),
    ],
)
@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(50)), lambda d: ConcatDataset([d, d])])
def test_random_augmentation_inside_a_data_set_is_refused(item, wrap):
    with pytest.raises(ConfigError, match=r"has another input each time it is fetched.*data\.transform"):
        open_source(wrap(Items(item)))


@pytest.mark.parametrize("item", [lambda i: (X[i], random.random()), lambda i: (X[i], next(_counter))])
def test_targets_that_change_are_refused(item):
    with pytest.raises(ConfigError, match="has another target each time"):
        open_source(Items(item))


def test_types_and_shapes_that_change_are_refused():
    dtypes = iter([torch.float32, torch.float64] * 50)
    with pytest.raises(ConfigError, match="has another input each time"):
        open_source(Items(lambda i: (X[i].to(next(dtypes)), 0)))
    sizes = iter([3, 4] * 50)
    with pytest.raises(ConfigError, match="has another input each time"):
        open_source(Items(lambda i: (X[i][: next(sizes)], 0)))


@pytest.mark.parametrize("item", [seeded_by_the_item, lambda i: (X[i], i), lambda i: (X[i] / 0 * 0, 0.0)])
def test_items_that_are_the_same_each_time_are_taken(item):
    torch.manual_seed(1)
    before = torch.get_rng_state(), random.getstate()
    assert open_source(Items(item)).rows == len(X)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_an_item_that_cannot_be_fetched_is_told():
    with pytest.raises(
        ConfigError, match=r"item 0 of the Items cannot be fetched .ZeroDivisionError: division by zero"
    ):
        open_source(Items(lambda i: 1 / i))
