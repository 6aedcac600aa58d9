"""A run is resumed with the same rows in the same shards, or not at all."""

from __future__ import annotations

import pytest
from runs import plain_net

from pisa_ray import Data, Indices
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare

CUT = ((0, 1, 2), (3, 4, 5, 6))


def identity(cut=CUT, **data):
    data = Data(train="digits", **data)
    return prepare(Config(model=plain_net, data=data, partition=Indices(cut), batch_size=2, seed=1)).data_sha256


@pytest.mark.parametrize(
    "cut",
    [
        ((0, 1, 7), (3, 4, 5, 6)),
        ((3, 1, 2), (0, 4, 5, 6)),
        ((0, 1, 2, 3), (4, 5, 6)),
        ((3, 4, 5, 6), (0, 1, 2)),
        ((0, 1, 2), (3, 4, 5)),
        ((0, 1, 2), (3, 4), (5, 6)),
    ],
)
def test_other_rows_in_a_shard_are_another_problem(cut):
    assert identity(cut) != identity()


def test_the_order_of_a_shards_list_is_none():
    assert identity(((2, 0, 1), (6, 5, 4, 3))) == identity()


@pytest.mark.parametrize("data", [{"validation": 0.4}, {"test": "digits:test"}, {"validation": "digits:test"}])
def test_rows_that_are_held_out_or_tested_on_are_part_of_it(data):
    assert identity(**data) != identity()
