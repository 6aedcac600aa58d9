"""With several shards, a parameter of which no shard has a gradient is left alone with all that is kept of it."""

import itertools

import pytest
import torch
from torch.nn import Parameter

from pisa_ray import optim

METHODS = [optim.PISA, optim.SISA, optim.SISAD, optim.NSISA]
TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def kept(optimizer, parameter):
    return {name: value.clone() for name, value in optimizer.state[parameter].items()}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_nothing_of_it_changes(method, dtype):
    there, absent = (Parameter(torch.ones(3, 3, dtype=dtype)) for _ in range(2))
    optimizer = method([there, absent], shards=2)
    for step in range(3):
        before, at = kept(optimizer, absent), absent.detach().clone()
        for _ in range(2):
            there.grad = torch.ones_like(there)
            absent.grad = torch.ones_like(absent) if step != 1 else None
            optimizer.report()
        optimizer.step()
        changed = [
            name
            for name, value in kept(optimizer, absent).items()
            if not torch.equal(value, before.get(name, value * 0))
        ]
        assert step != 1 or torch.equal(absent, at)
        assert bool(changed) is (step != 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_who_is_in_one_optimizer_with_it_does_not_matter(method, dtype):
    """Whatever gradients there are: two parameters go together as each goes in an optimizer of its own."""
    reports = ["ab", "a", "b", ""]
    for pattern in itertools.islice(itertools.product(itertools.product(reports, repeat=2), repeat=3), 0, None, 97):
        random = torch.Generator().manual_seed(1)
        first = [torch.randn(3, 3, generator=random).to(dtype) for _ in range(2)]
        together, apart = ([Parameter(x.clone()) for x in first] for _ in range(2))
        optimizers = [method(together, shards=2), *(method([p], shards=2) for p in apart)]
        for step in pattern:
            for there in step:
                for k, name in enumerate("ab"):
                    g = torch.randn(3, 3, generator=random).to(dtype)
                    together[k].grad, apart[k].grad = (g.clone() if name in there else None for _ in range(2))
                for optimizer in optimizers:
                    optimizer.report()
            for optimizer in optimizers:
                optimizer.step()
            assert all(map(torch.equal, together, apart)), pattern
