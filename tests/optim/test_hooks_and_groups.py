"""Hooks of torch's optimizers, and what a group of parameters may have."""

import pytest
import torch
from torch.nn import Parameter

from pisa_ray import ConfigError, optim
from pisa_ray.trainer.settings import Run

METHODS = [optim.PISA, optim.SISA, optim.SISAD, optim.NSISA]


def trained(method):
    parameters = [Parameter(torch.ones(3, 3)), Parameter(torch.ones(3))]
    optimizer = method(parameters)
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_what_a_hook_makes_of_a_state_is_loaded_and_checked(method):
    state = trained(method).state_dict()
    other = trained(method)
    handle = other.register_load_state_dict_pre_hook(lambda _, given: {**given, "state": {}})
    other.load_state_dict(state)
    assert not any(other.state[p] for group in other.param_groups for p in group["params"])
    handle.remove()
    other.load_state_dict(state)
    assert all(other.state[p]["dual_0"].any() for group in other.param_groups for p in group["params"])
    adam = torch.optim.Adam([Parameter(torch.ones(3, 3)), Parameter(torch.ones(3))])
    other.register_load_state_dict_pre_hook(lambda _, given: state)
    other.load_state_dict(adam.state_dict())
    assert len(other._optimizer_load_state_dict_pre_hooks) == 1


def test_a_weight_decay_of_nothing_is_nothing_and_others_are_refused():
    optimizer = optim.SISAD([{"params": [Parameter(torch.ones(3))], "weight_decay": 0.0}])
    assert "weight_decay" not in optimizer.param_groups[0]
    for key, value, sentence in (("weight_decay", 0.1, "give lam instead"), ("shards", 2, "are the whole optimizer's")):
        with pytest.raises(ConfigError, match=sentence):
            optim.SISAD([{"params": [Parameter(torch.ones(3))], key: value}])
    with pytest.raises(TypeError, match="param_group must be a dictionary with params, not list"):
        optimizer.add_param_group([Parameter(torch.ones(3))])


def test_two_runs_of_one_second_have_two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len({Run.of(None).placed().path for _ in range(3)}) == 3
