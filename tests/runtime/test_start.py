"""The automatic start in real runs: its bits, and going back where it was too bold."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from runs import Rich, events, plain_net, run, small_job, states, trajectory
from safetensors.torch import load_file
from simulated import Simulation, get

from pisa_ray import (
    NSISA,
    PISA,
    SISA,
    SISAD,
    Asynchronous,
    ConfigError,
    Constant,
    Data,
    Indices,
    NonFiniteError,
    OnlineK0,
)
from pisa_ray.actors import Sites
from pisa_ray.algorithm import Auto, Groups, number
from pisa_ray.data import BatchStream
from pisa_ray.engine.fleet import LocalFleet
from pisa_ray.engine.gradient import gradient
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.trainer.start import automatic_schedule, default_method, is_automatic, measured, method_for

NOWHERE = Sites("", {})

AUTOMATIC = {
    "pisa": PISA(),
    "sisa": SISA(lam=1e-3),
    "sisa_d": SISAD(),
    "nsisa": NSISA(),
    "hint": SISA(sigma=Auto(1e6), lam=1e-3),
}


def automatic(path, method, **changes):
    return run(path, **{"algorithm": AUTOMATIC[method], "sigma_schedule": None, **changes})


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("method", ["sisa", "sisa_d"])
def test_any_number_of_workers_finds_the_same_start(tmp_path, method):
    results = [automatic(tmp_path / str(w), method, workers=w, model=Rich) for w in (0, 1, 3)]
    assert len({result.weights_sha256 for result in results}) == 1
    assert len({str(started(result.path)) for result in results}) == 1
    assert trajectory(results[0]) == trajectory(results[2])
    assert states(results[0]) == states(results[2])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_an_asynchronous_run_starts_like_any_other(tmp_path):
    rule = Asynchronous(quorum=1.0, staleness=0)
    results = [automatic(tmp_path / str(w), "sisa_d", workers=w, asynchronous=rule, rounds=3) for w in (0, 2)]
    assert len({str(started(result.path)) for result in results}) == 1
    assert len({result.weights_sha256 for result in results}) == 1


def started(path):
    (event,) = events(path, "started")
    return {key: value for key, value in event.items() if isinstance(value, float)}


@pytest.mark.parametrize("method", AUTOMATIC)
def test_a_resumed_run_goes_on_with_what_was_found(tmp_path, method):
    straight = automatic(tmp_path / "straight", method)
    automatic(tmp_path / "resumed", method, stop_test_accuracy=1e-6, evaluate_every=2)
    resumed = automatic(tmp_path / "resumed", method, resume=True)
    assert len(events(tmp_path / "resumed", "started")) == 1
    assert resumed.weights_sha256 == straight.weights_sha256
    assert states(resumed) == states(straight)


@pytest.mark.parametrize("method", ["sisa", "sisa_d"])
def test_it_is_the_run_that_the_numbers_give(tmp_path, method):
    """Also where lambda shrinks w^1 by the sigma that was found."""
    found = automatic(tmp_path / "auto", method, rounds=4)
    numbers = started(found.path)
    given = type(AUTOMATIC[method])(**{"lam": AUTOMATIC[method].lam, **numbers})
    assert re.search("kind: (trapezoid|matched)", (found.path / "config.yaml").read_text())
    again = run(tmp_path / "given", rounds=4, algorithm=given, sigma_schedule=automatic_schedule(AUTOMATIC[method]))
    assert again.weights_sha256 == found.weights_sha256


def test_gradients_of_the_start_are_counted(tmp_path):
    shards = Indices([list(range(20)), list(range(20, 30))])
    one, other = (
        run(tmp_path / str(k), partition=shards, rounds=2, algorithm=method, sigma_schedule=Constant())
        for k, method in enumerate([SISA(), SISA(sigma=1, rho=1)])
    )
    assert one.history[-1]["sample_gradients"] - other.history[-1]["sample_gradients"] == 9 * (16 + 10)


def least_squares(scale, rows=40):
    """Linear regression whose curvature is about the scale."""
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0)) * scale**0.5
    return torch.utils.data.TensorDataset(x, x @ torch.ones(4))


class Steeper(torch.nn.Linear):
    """A linear model that is many times as steep for inputs it has not seen at the start: the start is misled."""

    def __init__(self, after: int, factor: float) -> None:
        super().__init__(4, 1)
        self.left, self.factor = after, factor

    def forward(self, x):
        self.left -= self.training
        return super().forward(x * (self.factor if self.left < 0 else 1.0))


def misled(path, **changes):
    # 9 forward passes of each of two shards for the start, one for the check before it, two a round.
    return run(
        path,
        **{
            "model": lambda: Steeper(18 + 4, 4.0),
            "data": Data(train=least_squares(1.0)),
            "partition": Indices([list(range(20)), list(range(20, 40))]),
            "algorithm": PISA(rho=0),
            "sigma_schedule": None,
            "batch_size": None,
            "rounds": 40,
            "evaluate_every": 5,
            **changes,
        },
    )


def test_a_run_that_explodes_goes_back_with_a_larger_sigma(tmp_path, capfd):
    result = misled(tmp_path / "run", progress=True)

    backed_off = events(result.path, "backed_off")
    assert len(backed_off) >= 2
    assert "going on from the start at twice the sigma" in backed_off[0]["message"]
    assert "at 4 times the sigma" in backed_off[1]["message"]
    assert "going on from the start at twice the sigma" in capfd.readouterr().err
    before, *_, after = [event["sigma"] for event in events(result.path, "started")]
    assert before == after  # that is measured anew, with the same result
    assert result.history[0]["sigma"] > 3 * before
    assert result.status == "finished"
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert [row["round"] for row in result.history] == list(range(5, 41, 5))


def test_it_goes_back_to_the_last_checkpoint(tmp_path):
    changes = {"model": lambda: Steeper(18 + 2 * 6 + 1, 4.0), "checkpoint_every": 4}
    result = misled(tmp_path / "run", **changes)
    (event, *_) = events(result.path, "backed_off")
    assert "going on from round 4 at twice the sigma" in event["message"]


def test_a_run_of_which_nothing_was_said_can_be_prolonged(tmp_path):
    """Its sigma goes as it was planned at first, and then stays."""
    automatic(tmp_path / "run", "sisa_d", rounds=4)
    longer = automatic(tmp_path / "run", "sisa_d", rounds=9, resume=True, evaluate_every=1)
    sigmas = [row["sigma"] for row in longer.history]
    assert longer.history[-1]["round"] == 9
    assert sigmas[-1] == sigmas[-5] == pytest.approx(10 * started(tmp_path / "run")["sigma"])


@pytest.mark.parametrize(
    ("shift", "noise"),
    [(-10.0, 0.0), (0.0, 1e-6)],  # a loss below 0; one that begins next to nothing
)
def test_what_is_no_explosion_does_not_end_a_run(tmp_path, shift, noise):
    def loss(output, target):
        return torch.nn.functional.cross_entropy(output, target) * (noise or 1) + shift

    result = run(tmp_path / "run", algorithm=SISAD(), sigma_schedule=None, loss=loss)
    assert result.status == "finished"
    assert not events(result.path, "backed_off")


@pytest.mark.parametrize("method", [SISA(sigma=1, lam=1.0), PISA(sigma=1, lam=1.0)])
def test_lambda_shrinks_the_initial_weights_once(method):
    job = small_job(algorithm=method)
    fleet = LocalFleet(job)
    found, _, _ = measured(fleet, job, job.build_model().layout, 10)
    fleet.start(found)
    np.testing.assert_allclose(fleet.published(), job.build_model().published() / 2, rtol=1e-6)


def test_a_given_sigma_is_not_touched(tmp_path):
    with pytest.raises(NonFiniteError):
        misled(tmp_path / "run", algorithm=PISA(sigma=0.1, rho=0))
    assert not events(tmp_path / "run", "backed_off")


def test_it_gives_up_in_the_end(tmp_path):
    class Never(torch.nn.Linear):
        def forward(self, x):
            self.calls = getattr(self, "calls", 0) + self.training
            return super().forward(x) * (float("nan") if self.calls > 23 else 1.0)

    with pytest.raises(NonFiniteError):
        misled(tmp_path / "run", model=lambda: Never(4, 1), rounds=8)
    assert len(events(tmp_path / "run", "backed_off")) == 10


def test_a_flat_loss_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="finds a curvature of 0 of the loss at the initial model"):
        misled(tmp_path / "run", model=lambda: torch.nn.Linear(4, 1), loss=lambda output, target: 0 * output.sum())


# When processes die meanwhile


@pytest.mark.parametrize("seed", range(10))
def test_deaths_during_the_start_change_nothing(seed, monkeypatch):
    job, luck = small_job(algorithm=SISA()), random.Random(seed)
    alone = LocalFleet(job)
    expected, found, samples = measured(alone, job, job.build_model().layout, 10)
    alone.start(expected)
    simulation = Simulation(job, NOWHERE, [None] * 3, monkeypatch, luck)
    fleet = simulation.fleet
    fleet.tend()
    gather = fleet.evaluation.gather

    def gathered(*arguments):
        sums = gather(*arguments)
        simulation.kill_some(luck, 0.4)
        return sums

    monkeypatch.setattr(fleet.evaluation, "gather", gathered)
    here, numbers, again = measured(fleet, job, job.build_model().layout, 10)

    assert (here.method, numbers, again) == (expected.method, found, samples)
    assert any(kind == "worker_died" for kind, _ in simulation.events)
    fleet.start(here)
    for round_ in (1, 2):
        reports = []
        for one in (fleet, alone):
            one.tend()
            one.begin(RoundSpec(round_, number(here.method.sigma), False))
            reports.append([shard.loss for shard in one.end().shards.values()])
        assert reports[0] == reports[1]
    assert np.array_equal(get(fleet.published()), alone.published())


def test_slopes_are_means_over_the_shards():
    job = small_job(algorithm=SISAD())
    fleet = LocalFleet(job)
    found = fleet.slope(fleet.published())
    model, gradients = job.build_model(), []
    for i, rows in enumerate(job.shards):
        stream = BatchStream(job.seed, i, len(rows), job.batch_size)
        x, y = job.train.read(rows).batch(stream.positions(0))
        gradient(model, job, job.preprocess(x, training=True), y)
        gradients.append(model.gradient.numpy().copy())
    alpha, g = np.array(job.alpha)[:, None], np.array(gradients)
    np.testing.assert_allclose(found.mean, (alpha * g).sum(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.size, (alpha * abs(g)).sum(0), rtol=1e-4, atol=1e-7)
    assert found.typical([slice(None)]) == pytest.approx(np.sqrt((alpha * g**2).sum(0).mean()), rel=1e-4)


class Transformer(torch.nn.Module):
    def __init__(self, norm=torch.nn.LayerNorm):
        super().__init__()
        self.table, self.norm, self.out = torch.nn.Embedding(20, 8), norm(8), torch.nn.Linear(8, 10)

    def forward(self, x):
        return self.out(self.norm(self.table((x * 16).long()).mean(1)))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Transformer, "NSISA"),
        (Transformer(torch.nn.RMSNorm), "NSISA"),
        (lambda: Transformer(torch.nn.Identity), "SISAD"),
        (lambda: torch.nn.Sequential(torch.nn.LayerNorm(64), torch.nn.Linear(64, 10)), "SISAD"),
    ],
)
def test_transformers_get_nsisa_where_no_method_is_named(tmp_path, model, expected):
    before = torch.random.get_rng_state()
    assert type(default_method(model)).__name__ == expected
    assert torch.equal(torch.random.get_rng_state(), before)
    result = run(tmp_path / "run", model=model, algorithm=None, sigma_schedule=None, rounds=2)
    assert f"kind: {type(default_method(model)).kind}" in (result.path / "config.yaml").read_text()


def test_groups_of_one_rule_get_the_numbers_that_it_would_have_alone():
    job = small_job(algorithm=SISAD())
    groups = Groups(groups={"vectors": SISAD(), "heads": SISAD(), "rest": SISAD()})
    layout = job.build_model().layout
    _, alone, samples = measured(LocalFleet(job), job, layout, 20)
    split = replace(job, method=groups)
    now, found, again = measured(LocalFleet(split), split, layout, 20)
    assert {name.partition(".")[2] for name in found} == set(alone) == {"sigma", "rho", "eps"}
    assert all(value == alone[name.partition(".")[2]] for name, value in found.items())
    assert samples == again
    assert now.method.is_complete


def test_each_kind_of_rule_is_measured_and_a_resume_keeps_what_was_found(tmp_path):
    method = Groups(groups={"vectors": None, "matrices": NSISA(rest=None), "heads": SISA()})
    whole = run(tmp_path / "whole", algorithm=method, sigma_schedule=Constant(), rounds=4)
    (found,) = events(whole.path, "started")
    assert {"matrices.sigma", "matrices.precision", "heads.sigma", "heads.rho"} <= set(found)
    run(tmp_path / "run", algorithm=method, sigma_schedule=Constant(), rounds=2)
    again = run(tmp_path / "run", algorithm=method, sigma_schedule=Constant(), rounds=4, resume=True)
    assert again.metrics["weights_sha256"] == whole.metrics["weights_sha256"]
    before, after = small_job(algorithm=SISA()).build_model(), load_file(whole.model_path)
    for slot in before.layout.slots:
        same = torch.equal(after[slot.name], dict(before.module.named_parameters())[slot.name])
        assert same == (len(slot.shape) < 2), slot.name


@pytest.mark.parametrize(
    ("method", "automatic"),
    [
        (Groups(groups={"rest": SISAD()}), True),
        (NSISA(sigma=20, rho=80), True),
        (NSISA(sigma=20, rho=80, rest=None), False),
        (Groups(groups={"matrices": SISA(sigma=1, rho=1), "rest": PISA()}), True),
        (SISAD(sigma=3), False),
    ],
)
def test_a_start_is_automatic_where_any_sigma_is(method, automatic):
    assert is_automatic(method) == automatic
    assert isinstance(automatic_schedule(method), Constant) != automatic


def test_beside_online_k0_every_sigma_that_is_given_is_a_hint():
    method = Groups(groups={"matrices": NSISA(sigma=20, rest=SISAD(sigma=5)), "rest": SISAD()})
    hinted = method_for(method, plain_net, OnlineK0())
    assert {path: rule.sigma for path, rule in hinted.rules().items()} == {
        "matrices.": Auto(20), "matrices.rest.": Auto(5), "rest.": Auto(),
    }  # fmt: skip
    assert method_for(method, plain_net, None) is method


def test_the_order_of_groups_may_not_change_in_a_resume(tmp_path):
    rules = {"*.weight": SISA(sigma=1, rho=1), "0.*": PISA(sigma=1, rho=1), "rest": PISA(sigma=1, rho=1)}
    swapped = {name: rules[name] for name in ("0.*", "*.weight", "rest")}
    assert Groups(groups=rules) != Groups(groups=swapped)
    net = lambda: torch.nn.Sequential(torch.nn.Linear(64, 9), torch.nn.Tanh(), torch.nn.Linear(9, 10))  # noqa: E731
    run(tmp_path / "run", model=net, algorithm=Groups(groups=rules), rounds=1)
    with pytest.raises(ConfigError, match=r"algorithm.groups = '\*.weight, 0.\*, rest'"):
        run(tmp_path / "run", model=net, algorithm=Groups(groups=swapped), rounds=2, resume=True)
