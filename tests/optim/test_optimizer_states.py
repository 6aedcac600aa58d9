"""The state of an optimizer: it goes on to the bit, and another optimizer's is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load, save
from small_nets import ALL, flat, net_of, saved, steps

from pisa_ray import ConfigError, optim
from pisa_ray.algorithm import AdaGrad, RMSProp


def by_safetensors(state):
    """A state whose tensors have gone through safetensors, and whose groups through torch's own file."""
    tensors = {f"{i} {name}": t for i, its in state["state"].items() for name, t in its.items()}
    read = load(save({name: t.contiguous() for name, t in tensors.items()}))
    found = {i: {name: read[f"{i} {name}"] for name in its} for i, its in state["state"].items()}
    return {"state": found, "param_groups": saved(state["param_groups"])}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("way", [copy.deepcopy, saved, by_safetensors])
def test_a_state_goes_on_to_the_bit(kind, dtype, shards, way):
    net = net_of(dtype)
    optimizer = kind(optim.groups(net), shards=shards)
    steps(net, optimizer, range(3))
    weights, state = copy.deepcopy(net.state_dict()), way(optimizer.state_dict())
    straight = steps(net, optimizer, range(3, 6))
    other = net_of(dtype)
    other.load_state_dict(weights)
    again = kind(optim.groups(other), shards=shards)
    again.load_state_dict(state)
    assert torch.equal(steps(other, again, range(3, 6)), straight)
    back = copy.deepcopy(net)
    back.load_state_dict(weights)
    optimizer.load_state_dict(state)  # and in mid-run
    net.load_state_dict(weights)
    assert torch.equal(steps(net, optimizer, range(3, 6)), straight)


@pytest.mark.parametrize("kind", ALL)
def test_a_copy_goes_on_to_the_bit(kind):
    net = net_of()
    optimizer = kind(optim.groups(net))
    steps(net, optimizer, range(3))
    other, again = copy.deepcopy((net, optimizer))
    assert torch.equal(steps(net, optimizer, range(3, 6)), steps(other, again, range(3, 6)))
    again.add_param_group({"params": [torch.nn.Parameter(torch.zeros(3))], "kind": "vectors"})


def test_another_optimizers_state_is_refused():
    net = net_of()
    ours = optim.SISA(net.parameters())
    steps(net, ours, range(2))
    before = flat(net)
    adam = torch.optim.Adam(net.parameters())
    for state in (
        adam.state_dict(),
        optim.SISAD(net.parameters()).state_dict(),
        optim.SISA(net.parameters(), shards=2).state_dict(),
    ):
        with pytest.raises(ConfigError, match="the state is of"):
            ours.load_state_dict(state)
    larger = optim.SISA([torch.nn.Parameter(torch.ones(2, *p.shape)) for p in net.parameters()])
    for p in larger.param_groups[0]["params"]:
        p.grad = p.detach()
    larger.step()
    with pytest.raises(ConfigError, match=r"\(2, 3, 1, 3, 3\)"):
        ours.load_state_dict(larger.state_dict())
    assert torch.equal(flat(net), before)
    steps(net, ours, [2])


@pytest.mark.parametrize("moment", [RMSProp(0.9), AdaGrad()])
def test_second_moments_are_plain_in_groups(moment):
    net = net_of()
    optimizer = optim.SISA(net.parameters(), second_moment=moment, sigma=3.0)
    assert optimizer.param_groups[0]["second_moment"][0] == type(moment).__name__.lower()
    steps(net, optimizer, range(2))
    again = optim.SISA(net.parameters())
    again.load_state_dict(saved(optimizer.state_dict()))
    assert again.param_groups[0]["second_moment"] == optimizer.param_groups[0]["second_moment"]
