"""The result is a function of configuration, data and seed: not of workers, placement, evaluations or stops."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from runs import METHODS, Rich, plain_net, recomputed_sha256, run, states, trajectory, uneven

from pisa_ray import ConfigError, Data, FeatureNoise, LabelSkew
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("method", "sizes"), [("sisa", (0, 1, 2, 5)), ("sisa_d", (0, 3)), ("nsisa", (0, 2)), ("sisa_d_local", (0, 2))]
)
def test_any_number_of_workers_gives_the_same_bits(tmp_path, method, sizes):
    """Seven shards of unequal size; a model with BatchNorm, dropout, tied, frozen and unused parameters."""
    results = {w: run(tmp_path / str(w), workers=w, method=method, model=Rich) for w in sizes}
    for workers, result in results.items():
        events = [json.loads(line) for line in (result.path / "events.jsonl").read_text().splitlines()]
        pids = {event["pid"] for event in events if event["kind"] == "worker_started"}
        assert len(pids) == max(workers, 1)
        assert result.weights_sha256 == results[0].weights_sha256
        assert trajectory(result) == trajectory(results[0])
        assert states(result) == states(results[0])
    assert recomputed_sha256(results[max(sizes)], Rich()) == results[0].weights_sha256


def test_two_runs_agree_and_another_seed_differs(tmp_path):
    one, again, other = (run(tmp_path / str(k), seed=seed) for k, seed in enumerate((3, 3, 4)))
    assert one.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert trajectory(one) == trajectory(again) != trajectory(other)


def model_for(method):
    """Second-order preconditioners differentiate a function of w, which forward must not write to."""
    return partial(Rich, max_norm=None) if method in ("fisher", "hutchinson") else Rich


@pytest.mark.parametrize("method", METHODS)
def test_evaluations_and_checkpoints_change_nothing(tmp_path, method):
    net = model_for(method)
    often = run(tmp_path / "a", method=method, rounds=5, evaluate_every=1, checkpoint_every=1, model=net)
    seldom = run(tmp_path / "b", method=method, rounds=5, evaluate_every=5, model=net)
    assert often.weights_sha256 == seldom.weights_sha256
    assert trajectory(often)[-1] == trajectory(seldom)[-1]
    assert len(often.history) == 5


@pytest.mark.parametrize("method", METHODS)
def test_a_run_in_which_few_report_is_resumed_with_the_same_bits(tmp_path, method):
    few = {"method": method, "model": model_for(method), "participation": 0.3}
    straight = run(tmp_path / "straight", **few)
    run(tmp_path / "resumed", rounds=4, **few)
    resumed = run(tmp_path / "resumed", resume=True, **few)
    assert [row["shards_reporting"] for row in straight.history] == [2, 2]
    assert resumed.weights_sha256 == straight.weights_sha256
    assert states(resumed) == states(straight)
    assert trajectory(resumed)[-1] == trajectory(straight)[-1]


@pytest.mark.parametrize(("share", "same"), [(1.0, True), (0.3, False)])
def test_remembered_gradients_matter_only_where_some_are_absent(tmp_path, share, same):
    one, other = (
        run(tmp_path / method, method=method, model=Rich, participation=share) for method in ("adam", "remembering")
    )
    assert (one.weights_sha256 == other.weights_sha256) is same
    assert (trajectory(one) == trajectory(other)) is same


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.slow
@pytest.mark.parametrize("method", ["scaffold", "mifa"])
def test_where_few_report_any_number_of_workers_gives_the_same_bits(tmp_path, method):
    """Three workers; there are rounds in which one has no shard that reports."""
    alone, many = (run(tmp_path / str(w), workers=w, method=method, model=Rich, participation=0.3) for w in (0, 3))
    assert many.weights_sha256 == alone.weights_sha256
    assert states(many) == states(alone)
    assert trajectory(many) == trajectory(alone)


def test_the_user_may_say_who_reports(tmp_path):
    lists = [[3, 0], [5], [1, 2, 6]]
    kept = {"method": "sisa_d", "model": Rich, "evaluate_every": 1}
    given = run(tmp_path / "given", participation=lists, **kept)
    assert [row["shards_reporting"] for row in given.history] == [7, 2, 1, 3, 2, 1]
    counts = {i: sum(i in lists[t % 3] for t in range(5)) for i in range(7)}
    found = {i: json.loads(states(given)[f"{i}/scalars"]) for i in range(7)}
    assert {i: s["reports"] for i, s in found.items()} == {i: 1 + n for i, n in counts.items()}
    assert found[4]["version"] == 1
    run(tmp_path / "part", participation=lists, **kept | {"rounds": 3})
    resumed = run(tmp_path / "part", participation=lists, resume=True, **kept)
    assert states(resumed) == states(given)
    for wrong, message in (
        ([], "participation is an empty list"),
        ([[0], []], r"participation\[1\] is \[\], but it must name one or more of the shards 0 to 6"),
        ([[7]], r"participation\[0\] is \[7\]"),
        ([[1, 1]], r"participation\[0\] is \[1, 1\]"),
        (0.0, "participation is 0.0, but it must be a number above 0 and at most 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(tmp_path / "wrong", participation=wrong)


def test_reporters_are_keyed_by_seed_and_round():
    job = prepare(Config(model=plain_net, data=Data(train="digits"), partition=uneven(), participation=0.4)).job
    rounds, again, other = ([tuple(j.reporters(r)) for r in range(1, 200)] for j in (job, job, replace(job, seed=1)))
    assert rounds[0] == tuple(range(7))  # the first round is full
    assert {len(r) for r in rounds[1:]} == {3}
    assert all(list(r) == sorted(set(r)) for r in rounds)
    assert rounds == again
    assert rounds != other
    share = np.bincount(np.concatenate(rounds[1:]), minlength=7) / 198
    assert np.abs(share - 3 / 7).max() < 0.15
    assert len(replace(job, participation=0.01).reporters(2)) == 1


@pytest.mark.parametrize("stops", [(2,), (1, 4), (1, 2, 5)])
def test_a_run_resumed_once_twice_or_three_times_ends_in_the_same_bits(tmp_path, stops):
    straight = run(tmp_path / "straight", rounds=6, model=Rich)
    for rounds in stops:
        run(tmp_path / "resumed", rounds=rounds, model=Rich, resume=True)
    resumed = run(tmp_path / "resumed", rounds=6, model=Rich, resume=True)
    assert resumed.weights_sha256 == straight.weights_sha256
    assert states(resumed) == states(straight)
    assert trajectory(resumed)[-1] == trajectory(straight)[-1]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_run_resumed_at_other_sizes_and_places_ends_in_the_same_bits(tmp_path):
    straight = run(tmp_path / "straight", rounds=6, model=Rich)
    for k, (workers, rounds) in enumerate(((1, 1), (5, 3), (2, 5), (1, 6))):
        if k:
            shutil.move(tmp_path / str(k - 1), tmp_path / str(k))
        resumed = run(tmp_path / str(k), workers=workers, rounds=rounds, model=Rich, resume=True)
    assert resumed.weights_sha256 == straight.weights_sha256
    assert states(resumed) == states(straight)


def augment(x: torch.Tensor, training: bool) -> torch.Tensor:
    return x + 0.1 * torch.randn_like(x) * np.random.rand() if training else x


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    "changes",
    [
        {
            "partition": FeatureNoise(shards=5, level=0.5),
            "data": Data(train="digits", test="digits:test", validation=0.2),
            "batch_size": None,
            "micro_batch_size": 40,
            "clip_norm": 0.5,
            "shard_weights": "uniform",
        },
        {
            "data": Data(train="digits", test="digits:test", transform=augment),
            "autocast": True,
            "model": Rich(),
            "threads_per_worker": 2,
        },
    ],
    ids=["noise-validation-full-clip", "augment-autocast-instance-threads"],
)
def test_options_keep_the_promise(tmp_path, changes):
    here, there = (run(tmp_path / str(w), workers=w, **{"model": Rich, **changes}) for w in (0, 2))
    assert here.weights_sha256 == there.weights_sha256
    assert trajectory(here) == trajectory(there)


def test_options_do_something(tmp_path):
    plain = run(tmp_path / "plain").weights_sha256
    for k, changes in enumerate(
        [
            {"partition": FeatureNoise(shards=7, level=0.5)},
            {"data": Data(train="digits", test="digits:test", transform=augment)},
            {"clip_norm": 0.1},
            {"autocast": True},
            {"shard_weights": "uniform"},
            {"batch_size": None},
            {"method": "sisa_d"},
        ]
    ):
        assert run(tmp_path / str(k), **changes).weights_sha256 != plain, changes


def test_the_process_is_left_as_it_was_found(tmp_path):
    torch.set_num_threads(2)
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes()
    run(tmp_path / "run")
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tobytes() == before[1]
    assert float(torch.tensor(1e-39) * 0.5) > 0  # denormals are back


def test_the_initial_model_is_what_torch_makes_of_the_seed(tmp_path):
    """One round of SISA with a huge penalty leaves w at the initial model: the user can make it outside the library."""
    from pisa_ray import SISA

    result = run(tmp_path / "run", rounds=1, algorithm=SISA(sigma=1e20, rho=200), seed=5)
    torch.manual_seed(5)
    from runs import plain_net
    from safetensors.torch import load_file

    saved = load_file(result.model_path)
    for name, parameter in plain_net().named_parameters():
        torch.testing.assert_close(saved[name], parameter.detach(), rtol=1e-6, atol=1e-7)


def test_learning_really_happens(tmp_path):
    result = run(tmp_path / "run", partition=LabelSkew(10, 1), batch_size=32, rounds=150, evaluate_every=50)
    assert result.metrics["test_accuracy"] > 0.93
    assert [row["round"] for row in result.history] == [50, 100, 150]
