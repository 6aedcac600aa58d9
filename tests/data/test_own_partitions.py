"""A partition of the user's own that breaks the rules is refused before anything is started."""

from dataclasses import dataclass

import numpy as np
import pytest
from torch import nn

from pisa_ray import ConfigError, Data
from pisa_ray.data import Partition
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


@dataclass(frozen=True)
class Own(Partition):
    """Cuts as it is told."""

    def split(self, source, seed):
        return CUTS[-1]() if callable(CUTS[-1]) else CUTS[-1]


CUTS: list = []


@pytest.mark.parametrize(
    ("cut", "sentence"),
    [
        ([np.arange(5), np.arange(4, 9)], "Own.split gives row 4 to shard 1 and to another one, but shards must not"),
        ([np.array([3, 1])], "Own.split gives shard 0 row numbers that are not ascending, or not among 0 to 1436"),
        ([np.array([1, 1])], "Own.split gives shard 0 row numbers that are not ascending"),
        ([np.array([0, 10**6])], "Own.split gives shard 0 row numbers that are not ascending, or not among"),
        ([np.array([-1, 3])], "Own.split gives shard 0 row numbers that are not ascending, or not among"),
        ([np.arange(3), np.array([], dtype=int)], "Own.split gives shard 1 no list of row numbers"),
        ([np.array([0.5, 1.0])], "Own.split gives shard 0 no list of row numbers"),
        ([], "Own.split gives no shards"),
        (lambda: 1 // 0, "partition cannot cut the data: ZeroDivisionError"),
    ],
)
def test_a_cut_that_is_none_is_refused(cut, sentence):
    CUTS.append(cut)
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        prepare(Config(model=nn.Linear(64, 10), data=Data(train="digits"), partition=Own()))
