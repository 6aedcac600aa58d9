"""What an optimizer refuses, in a sentence and before anything moves."""

from __future__ import annotations

import re

import pytest
import torch
from small_nets import ALL, backward, net_of

from pisa_ray import SISAD, Auto, ConfigError, optim
from pisa_ray.algorithm import HessianDiagonal


@pytest.mark.parametrize("number", ["sigma", "rho"])
@pytest.mark.parametrize("kind", ALL)
def test_auto_is_refused_by_name(kind, number):
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.{number} is Auto\(\).*PisaTrainer"):
        kind(net_of().parameters(), **{number: Auto()})


REFUSED = {
    "sigma is -1": lambda p: optim.SISA(p, sigma=-1),
    "sigma is 0": lambda p: optim.SISA([{"params": p, "sigma": 0}]),
    "lr is -1": lambda p: optim.SISA(p, lr=-1),
    "lr is nan": lambda p: optim.SISA([{"params": p, "lr": float("nan")}]),
    "shards is 0": lambda p: optim.SISA(p, shards=0),
    "preconditioner is a HessianDiagonal": lambda p: optim.PISA(p, preconditioner=HessianDiagonal()),
    "rest is 3": lambda p: optim.NSISA(p, rest=3),
    "SISAD.sigma is Auto()": lambda p: optim.NSISA(p, rest=SISAD()),
    "kind is 'matrix'": lambda p: optim.NSISA([{"params": p, "kind": "matrix"}]),
    "weight_decay": lambda p: optim.SISA([{"params": p, "weight_decay": 0.1}]),
    "is complex": lambda p: optim.SISA([torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))]),
    "parameter second (2,) is complex": lambda p: optim.SISA(
        [
            ("first", torch.nn.Parameter(torch.zeros(2))),
            ("second", torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))),
        ]
    ),
    "(3,) is of a group of matrices": lambda p: optim.NSISA(
        [{"params": [torch.nn.Parameter(torch.zeros(3))], "kind": "matrices"}]
    ),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_used_is_refused_in_a_sentence(said):
    with pytest.raises(ConfigError, match=re.escape(said)) as refused:
        REFUSED[said](list(net_of().parameters()))
    assert str(refused.value).endswith(".")


def test_a_sparse_gradient_is_refused_before_anything_moves():
    table = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = optim.SISA(table.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ConfigError, match=r"parameter number 0 \(5, 2\) is sparse"):
        optimizer.step()
    assert not optimizer.state


def test_reports_and_steps_out_of_turn_are_refused():
    net = net_of()
    optimizer = optim.SISA(net.parameters(), shards=2)
    for k in range(2):
        backward(net, k)
        optimizer.report()
        assert net[0].bias.grad is None
    with pytest.raises(ConfigError, match="shards is 2"):
        optimizer.report()
    with pytest.raises(ConfigError, match="after step"):
        optimizer.state_dict()
    backward(net, 2)
    with pytest.raises(ConfigError, match="no report"):
        optimizer.step()
    optimizer.zero_grad()
    optimizer.step()
    optimizer.state_dict()
