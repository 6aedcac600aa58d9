"""A run with one shard and an optimizer in a plain loop make the same weights from the same batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pisa_ray import NSISA, PISA, SISA, SISAD, Data, Indices, optim
from pisa_ray.engine.consensus import Consensus
from pisa_ray.engine.numerics import set_numerics
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.engine.worker import Worker
from pisa_ray.optim import optimizer
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


class WithNames(torch.nn.Module):
    """An embedding, blocks with two equal matrices and a convolution, a head, vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(20, 8)
        self.conv = torch.nn.Conv1d(64, 8, 3)
        self.blocks = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))
        self.norm = torch.nn.LayerNorm(8)
        self.head = torch.nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.conv(self.table((16 * x).long())).mean(2))))


METHODS = {
    "pisa": (PISA(sigma=3.0, rho=1.0), lambda net, **k: optim.PISA(net.parameters(), sigma=3, rho=1, **k)),
    "sisa": (SISA(sigma=0.3, rho=30.0), lambda net, **k: optim.SISA(net.parameters(), sigma=0.3, rho=30, **k)),
    "sisa_d": (SISAD(sigma=60.0, rho=540.0), lambda net, **k: optim.SISAD(net.parameters(), sigma=60, rho=540, **k)),
    "nsisa": (
        NSISA(sigma=20.0, rho=80.0, rest=SISAD(sigma=30.0, rho=570.0), precision="float32"),
        lambda net, **k: optim.NSISA(optim.groups(net), **k),
    ),
    "paper": (
        NSISA(sigma=20.0, rho=80.0, rest=None, precision="float32"),
        lambda net, **k: optim.NSISA(optim.groups(net), rest=None, **k),
    ),
}


def run_of(method, sigmas, shards=1, rows=96):
    """What rounds of a run make: the model it begins with, each shard's batches, the last w."""
    cuts = np.array_split(np.arange(rows), shards)
    job = prepare(
        Config(
            model=WithNames,
            data=Data(train="digits"),
            partition=Indices(tuple(tuple(map(int, cut)) for cut in cuts)),
            algorithm=method,
            batch_size=16,
        )
    ).job
    worker = Worker(job, process_is_ours=False)
    worker.host(range(shards))
    first = {name: t.clone() for name, t in worker.model.module.state_dict().items()}
    consensus = Consensus(job, worker.model.layout, worker.model.published())
    batches = []
    for round_, sigma in enumerate(sigmas, start=1):
        payload, _ = worker.step(RoundSpec(round_, sigma, False), consensus.publish())
        assert consensus.add(round_, round_, payload)
        consensus.update(RoundSpec(round_, sigma, False))
        here = [worker.shards[i].own_rows for i in range(shards)]
        batches.append([own.training.batch(own.stream.positions(round_ - 1)) for own in here])
    return first, batches, torch.tensor(consensus.publish())


def trained(make, first, batches, **options):
    """The parameters that an optimizer leaves, after the same batches."""
    net = WithNames()
    net.load_state_dict(first)
    steps = make(net, **options)
    loss = torch.nn.functional.cross_entropy
    for of_shards in batches:
        steps.zero_grad()
        for x, y in of_shards:
            loss(net(x), y).backward()
            if len(of_shards) > 1:
                steps.report()
        steps.step()
    return torch.nn.utils.parameters_to_vector(net.parameters())


@pytest.mark.parametrize("large", [optimizer.LARGE, 70])
@pytest.mark.parametrize("name", METHODS)
def test_one_shard_of_a_run_and_an_optimizer_make_the_same_bits(name, large, monkeypatch):
    monkeypatch.setattr(optimizer, "LARGE", large)  # which parameters move together changes nothing
    set_numerics(1)
    method, make = METHODS[name]
    first, batches, last = run_of(method, [method.sigma] * 8)
    assert torch.equal(trained(make, first, batches), last)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shards", [2, 3, 4])
def test_shards_of_a_run_and_reports_make_the_same_bits(name, shards, monkeypatch):
    monkeypatch.setattr(optimizer, "LARGE", 70)
    set_numerics(1)
    method, make = METHODS[name]
    first, batches, last = run_of(method, [method.sigma] * 5, shards)
    assert torch.equal(trained(make, first, batches, shards=shards), last)
