"""A small network, its batches, and steps of an optimizer on them."""

from __future__ import annotations

import io

import torch

from pisa_ray import optim

ALL = (optim.PISA, optim.SISA, optim.SISAD, optim.NSISA)


def net_of(dtype=torch.float32):
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(27, 5)
    return torch.nn.Sequential(*layers).to(dtype)


def batch(k, net):
    random = torch.Generator().manual_seed(k)
    x = torch.randn(7, 1, 5, 5, generator=random).to(next(net.parameters()).dtype)
    return x, torch.randint(5, (7,), generator=random)


def backward(net, k):
    x, y = batch(k, net)
    loss = torch.nn.functional.cross_entropy(net(x), y)
    loss.backward()
    return loss


def steps(net, optimizer, numbers):
    for k in numbers:
        optimizer.zero_grad()
        backward(net, k)
        if optimizer.shards > 1:
            for j in range(1, optimizer.shards):
                optimizer.report()
                backward(net, 100 * j + k)
            optimizer.report()
        optimizer.step()
    return flat(net)


def flat(net):
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer)  # weights only
