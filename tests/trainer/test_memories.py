"""Whether shards can join or leave where the consensus remembers something: only if its method says what that is of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from runs import METHODS
from torch import nn

from pisa_ray import ConfigError, Data, Indices
from pisa_ray.algorithm import FedAdam, FedAvg, Scaffold, SyncOptimizer, memory_of
from pisa_ray.trainer.changes import Asked, Changes
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


@dataclass(frozen=True, kw_only=True)
class Undeclared(FedAvg):
    """As an outsider would write FedDyn: the consensus has a sum over all shards."""

    def initial_memory(self, layout):
        return torch.zeros(layout.size)


@dataclass(frozen=True, kw_only=True)
class OtherMemory(FedAdam):
    """What FedAdam says of its moments says nothing of this."""

    def initial_memory(self, layout):
        return torch.zeros(layout.size)


@dataclass(frozen=True, kw_only=True)
class Declared(Undeclared):
    memory_of: ClassVar[str] = "steps"


@dataclass(frozen=True, kw_only=True)
class Below(Declared):
    """Inherits both what is remembered and what is said of it."""


@dataclass(frozen=True, kw_only=True)
class Variates(Scaffold):
    pass


def changes(method):
    return Changes(
        prepare(
            Config(
                model=lambda: nn.Linear(64, 10),
                data=Data(train="digits"),
                partition=Indices(((0, 1), (2, 3), (4, 5))),
                algorithm=method,
            )
        )
    )


@pytest.mark.parametrize(
    "method",
    [Undeclared(lr=0.1), OtherMemory(lr=0.1), Scaffold(lr=0.1), Variates(lr=0.1)],
    ids=lambda method: type(method).__name__,
)
def test_a_memory_that_may_be_of_the_founders_keeps_them_together(method):
    name = type(method).__name__
    for asked in (Asked(remove=0), Asked.to_add("nowhere.parquet")):
        with pytest.raises(ConfigError, match=f"shards cannot join or leave a run of {name}, whose consensus rem"):
            changes(method).ask(asked)


@pytest.mark.parametrize(
    "method",
    [*(m for m in METHODS.values() if memory_of(m) != "founders"), Declared(lr=0.1), Below(lr=0.1)],
    ids=lambda method: type(method).__name__,
)
def test_no_memory_and_one_of_the_steps_of_w_let_a_shard_leave(method):
    it = changes(method)
    it.ask(Asked(remove=0))
    assert it.waiting == [Asked(remove=0)]


def test_an_outsiders_method_is_told_what_to_say():
    with pytest.raises(ConfigError, match="Undeclared does not say of what: set its memory_of, if that is 'steps', or"):
        changes(Undeclared(lr=0.1)).ask(Asked(remove=0))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_state_of_an_optimizer_is_of_steps(optimizer):
    it = changes(SyncOptimizer(optimizer=optimizer))
    job, _ = it.made(it.job, Asked(remove=1), 3)
    assert list(job.present) == [0, 2]
