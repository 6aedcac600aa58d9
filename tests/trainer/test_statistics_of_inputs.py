"""Inputs are normalised by the training rows' statistics, whatever is evaluated."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from pisa_ray import Data
from pisa_ray.data import default_preprocess, open_source


def pictures(low, high):
    colours = torch.linspace(low, high, 20 * 3 * 2 * 2).view(20, 3, 2, 2).to(torch.uint8)
    return TensorDataset(colours, torch.zeros(20, dtype=torch.int64))


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    "others", [{"test": pictures(200, 255)}, {"validation": pictures(200, 255)}, {"validation": 0.5}]
)
def test_test_and_validation_rows_play_no_part_in_it(others, keep):
    train = pictures(0, 90)
    expected = default_preprocess(open_source(train))
    assert expected != default_preprocess(open_source(pictures(200, 255)))
    assert Data(train=train, **others).open(keep=keep).preprocess == expected
