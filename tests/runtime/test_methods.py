"""What every method owes the engine: it only reads what it is given, and draws and counts batches as it says."""

from __future__ import annotations

import weakref
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from every import every
from runs import METHODS, Rich, plain_net, uneven
from torch import nn

from pisa_ray import MOON, PISA, SISAD, ConfigError, Data, FedAvg, PisaError, SyncOptimizer
from pisa_ray.algorithm import HessianDiagonal, Preconditioner
from pisa_ray.engine.consensus import Consensus
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.engine.worker import Worker
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


def job(method, model=plain_net, **more):
    return prepare(
        Config(model=model, data=Data(train="digits"), partition=uneven(), algorithm=method, batch_size=16, **more)
    ).job


def hosting(of):
    worker = Worker(of, process_is_ours=False)
    worker.host(range(len(of.shards)))
    return worker, Consensus(of, worker.model.layout, worker.model.published())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_what_arrives_is_only_read(method, share):
    """Messages may lie in the object store and be added again, to a consensus that takes another's place."""
    of = job(METHODS[method], participation=share)
    worker, consensus = hosting(of)
    sigma = of.method.sigma
    for round_ in (1, 2, 3):
        w = consensus.publish().copy()
        payload, report = worker.step(RoundSpec(round_, sigma * round_, round_ == 2), w)
        everything = worker.repeat(range(len(of.shards)), round_ == 2) if of.messages_stand else payload
        successor = Consensus(of, worker.model.layout, worker.model.published())
        successor.restore(w, round_)
        results = []
        for each, told in ((consensus, payload), (successor, everything)):
            before = deepcopy(told)
            assert each.add(round_, 0, told)
            results.append(each.update(RoundSpec(round_, sigma * round_, round_ == 2))[0].tobytes())
            for (_, was), (_, is_now) in zip(
                [*before.messages, *before.duals], [*told.messages, *told.duals], strict=True
            ):
                assert was.tobytes() == is_now.tobytes()
        assert results[0] == results[1]
        assert list(report.shards) == list(of.reporters(round_))
        assert all(of.steps(i) * of.batch_rows(i) == shard.samples for i, shard in report.shards.items())


def test_second_order_information_leaves_no_trace_in_batchnorm():
    def buffers(preconditioner):
        of = job(PISA(sigma=3.0, rho=1.0, preconditioner=preconditioner), model=lambda: Rich(max_norm=None))
        worker, consensus = hosting(of)
        payload, _ = worker.step(RoundSpec(1, 3.0, True), consensus.publish())
        consensus.add(1, 0, payload)
        return consensus.update(RoundSpec(1, 3.0, True))[0][worker.model.layout.size :].copy()

    plain = buffers(PISA().preconditioner)
    assert len(plain)
    for preconditioner in every(Preconditioner, hessian_diagonal=HessianDiagonal(probes=2)).values():
        assert np.array_equal(buffers(preconditioner), plain)


def test_batchnorm_statistics_go_from_local_step_to_local_step():
    """As with FedAvg: on the same mini-batches, where no step moves, the messages carry the same statistics."""

    def buffers(method):
        of = job(method, model=lambda: Rich(max_norm=None))
        worker, consensus = hosting(of)
        w = consensus.publish().copy()
        payload, _ = worker.step(RoundSpec(1, method.sigma, True), w)
        consensus.add(1, 0, payload)
        return consensus.update(RoundSpec(1, method.sigma, True))[0][worker.model.layout.size :].copy()

    one, three = (buffers(PISA(sigma=1e20, rho=0.0, local_steps=steps)) for steps in (1, 3))
    assert np.array_equal(three, buffers(FedAvg(lr=1e-20, steps=3)))
    assert not np.array_equal(three, one)


class Fails(nn.Module):
    """Fails in its n-th forward pass in training mode, counted over all shards."""

    def __init__(self, at: list[int]) -> None:
        super().__init__()
        self.net, self.at = plain_net(), at

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.at[0] -= 1
            if self.at[0] < 0:
                raise KeyError("failing")
        return self.net(x)


@pytest.mark.parametrize(("method", "number"), [("sisa", 1), ("adam", 1), ("scaffold", 3), ("sisa_d_local", 5)])
def test_errors_name_the_rows_of_the_batch_that_failed(method, number):
    """In round 2; scaffold takes two steps a round, sisa_d_local three, and fails in the last."""
    at = [10**9]
    of = job(METHODS[method], model=lambda: Fails(at))
    worker, consensus = hosting(of)
    worker.job = of = replace(of, train=_Grouped(of.train, 10))
    w = consensus.publish()
    worker.step(RoundSpec(1, of.method.sigma, False), w, [4])
    at[0] = of.steps(4) - 1
    rows = of.shards[4][worker.shards[4].own_rows.stream.positions(number)]
    groups = ", ".join(map(str, sorted({int(row) // 10 for row in rows})))
    with pytest.raises(PisaError, match=rf"shard 4 in round 2 \(rows from row groups? {groups}( and \d+ more)?\)"):
        worker.step(RoundSpec(2, of.method.sigma, False), w, [4])


class _Grouped:
    """A source in groups of so many rows."""

    def __init__(self, source, size):
        self.source, self.size = source, size

    def starts(self):
        return np.arange(0, self.source.rows + self.size, self.size)


@pytest.mark.parametrize(
    "method", [FedAvg(lr=0.1, steps=20), SISAD(sigma=60, rho=540, local_steps=20)], ids=["fedavg", "sisa_d"]
)
def test_a_report_keeps_one_batch_however_many_it_draws(method):
    of = job(method)
    worker, consensus = hosting(of)
    alive = []
    draw = worker.draw

    def watched(*arguments):
        alive[:] = [reference for reference in alive if reference() is not None]
        assert len(alive) <= 2
        batch = draw(*arguments)
        alive.append(weakref.ref(batch))
        return batch

    worker.draw = watched
    worker.step(RoundSpec(1, 10.0, False), consensus.publish())
    assert alive


def test_what_does_not_fit_the_model_is_found_before_anything_starts():
    with pytest.raises(ConfigError, match=r"MOON compares what enters the last nn\.Linear, but the model has none"):
        job(MOON(), model=lambda: nn.Sequential(nn.Unflatten(1, (1, 64)), nn.Conv1d(1, 10, 64), nn.Flatten()))
    for method in (FedAvg(optimizer="muon"), SyncOptimizer(optimizer="muon")):
        with pytest.raises(ConfigError, match="Muon"):
            job(method)
