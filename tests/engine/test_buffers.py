"""Running statistics are averaged over shards; of other saved buffers the first shard's are taken, whoever hosts it."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import TensorDataset

from pisa_ray import IID, ConfigError, Data, PisaTrainer
from pisa_ray.algorithm import SISA, FedAvg, Median
from pisa_ray.engine.consensus import Consensus
from pisa_ray.engine.fleet import LocalFleet
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.engine.worker import Worker
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare

X = torch.sin(torch.arange(48 * 4).float()).view(48, 4)
DATA = TensorDataset(X, torch.arange(48) % 3)


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), spectral_norm(nn.Linear(6, 6)), nn.Linear(6, 3))


def old_spectral() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 3))


def prepared(model=normed, **changes):
    arguments = {"partition": IID(4), "algorithm": SISA(sigma=1.0, rho=1.0), "batch_size": 6}
    return prepare(Config(model=model, data=Data(train=DATA), **(arguments | changes))).job


WAYS = {
    "all": {},
    "local steps": {"algorithm": FedAvg(lr=0.3, steps=4)},
    "some": {"algorithm": FedAvg(lr=0.3, steps=4), "participation": 0.5},
    "lists": {"algorithm": FedAvg(lr=0.3, steps=4), "participation": [[2, 3], [1, 3]]},
    "remembered": {"participation": 0.5},
    "compared": {"robust": Median()},
    "compared, some": {"algorithm": FedAvg(lr=0.3, steps=4), "robust": Median(), "participation": [[1, 2, 3]]},
}


def vectors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: b for name, b in module.named_buffers() if name.endswith(("_u", "_v"))}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", [normed, old_spectral])
def test_the_vectors_of_spectral_norm_stay_unit_vectors(model, way):
    fleet = LocalFleet(prepared(model, **WAYS[way]))
    for round_ in range(1, 9):
        fleet.begin(RoundSpec(round_, 1.0, False))
        fleet.end()
    module = fleet.worker.model.module
    fleet.worker.model.load(fleet.published())
    assert len(vectors(module)) == 2
    for vector in vectors(module).values():
        assert float(vector.norm()) == pytest.approx(1, abs=1e-6)
    layer = next(m for m in module.modules() if hasattr(m, "parametrizations") or hasattr(m, "weight_orig"))
    module.eval()
    module(X)
    assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("way", WAYS)
def test_whoever_hosts_which_shard_changes_no_bit_of_them(way):
    job = prepared(**WAYS[way])
    alone = LocalFleet(job)
    workers = [Worker(job, process_is_ours=False) for _ in range(2)]
    for worker, shards in zip(workers, ([1, 2], [0, 3]), strict=True):
        worker.host(shards)
    model = workers[0].model
    consensus = Consensus(job, model.layout, model.published(), model.unaveraged)
    published = consensus.publish()
    for round_ in range(1, 6):
        alone.begin(RoundSpec(round_, 1.0, False))
        alone.end()
        for ticket, worker in enumerate(reversed(workers)):
            payload, _ = worker.step(RoundSpec(round_, 1.0, False), published.copy())
            consensus.add(round_, ticket, payload)
        published, _ = consensus.update(RoundSpec(round_, 1.0, False))
        assert np.array_equal(published, alone.published())


class Keeping(nn.Module):
    """A linear layer that keeps something in a buffer."""

    def __init__(self, name: str, write) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer(name, torch.ones(4))
        self.write = write

    def forward(self, x):
        if self.training:
            self.write(self, x)
        return self.layer(x)


def test_running_statistics_of_any_module_are_averaged():
    def write(self, x):
        self.running_peak.copy_(x.amax(0))

    job = prepared(lambda: Keeping("running_peak", write), batch_size=None)
    fleet = LocalFleet(job)
    fleet.begin(RoundSpec(1, 1.0, False))
    fleet.end()
    peaks = torch.stack([X[torch.tensor(rows)].amax(0) for rows in job.shards])
    assert torch.tensor(fleet.published()[-4:]) == pytest.approx(peaks.mean(0), abs=1e-6)


def test_constants_keep_their_bits():
    value = torch.tensor([0.1, 1 / 3, 1e-20, 7.7])

    def make():
        module = Keeping("table", lambda self, x: None)
        module.table.copy_(value)
        return module

    fleet = LocalFleet(prepared(make, partition=IID(3)))
    for round_ in range(1, 9):
        fleet.begin(RoundSpec(round_, 1.0, False))
        fleet.end()
    assert torch.equal(torch.tensor(fleet.published()[-4:]), value)


def last_batch(self, x):
    self.seen.copy_(x.mean(0))


def queue(self, x):
    self.queue[1:] = self.queue[:-1].clone()
    self.queue[0] = x[0, 0]


@pytest.mark.parametrize(("name", "write"), [("seen", last_batch), ("queue", queue)])
def test_what_keeps_something_of_the_data_under_another_name_is_refused(name, write):
    with pytest.raises(ConfigError, match=f"model keeps in its buffer {name} what it has seen of the data"):
        prepared(lambda: Keeping(name, write))


@pytest.mark.parametrize("name", ["running_mean", "total"])
def test_buffers_that_are_replaced_are_refused(name):
    def write(self, x):
        setattr(self, name, getattr(self, name) * 0.9)

    with pytest.raises(ConfigError, match=f"model puts another tensor in the place of {name} .* write in place"):
        prepared(lambda: Keeping(name, write))


def test_parameters_that_are_replaced_are_refused():
    def write(self, x):
        self.layer.weight = nn.Parameter(self.layer.weight.detach().clone())

    with pytest.raises(ConfigError, match="use a parameter of shape"):
        prepared(lambda: Keeping("total", write))


def test_a_run_with_spectral_norm_is_resumed_with_the_same_bits(tmp_path):
    def run(name, rounds, **changes):
        return PisaTrainer(
            model=normed,
            data=Data(train=DATA),
            partition=IID(4),
            algorithm=FedAvg(lr=0.3, steps=2),
            rounds=rounds,
            scaling_config=0,
            run_config=tmp_path / name,
            progress=False,
            **changes,
        ).fit()

    run("part", 3)
    assert run("part", 6, resume=True).weights_sha256 == run("whole", 6).weights_sha256
