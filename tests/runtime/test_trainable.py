"""PisaTrainable by itself: steps, complete checkpoints, settings that change."""

from __future__ import annotations

import math

import pytest
import torch
from runs import METHODS, plain_net, run, uneven

from pisa_ray import (
    PISA,
    SISA,
    SISAD,
    Asynchronous,
    Auto,
    ConfigError,
    Constant,
    Data,
    Geometric,
    OnlineK0,
    SyncOptimizer,
)
from pisa_ray.tuning import PisaTrainable

DATA = Data(train="digits", test="digits:test", validation=0.1)
PARTITION = uneven()


def build(config):
    """As runs.run, with k0, gamma and sigma as in a trial's config."""
    method = {
        "sisa": SISA(sigma=config.get("sigma", 0.3), rho=config.get("rho", 30.0), lam=1e-3),
        **config.get("as", {}),
    }
    return {
        "model": plain_net,
        "data": DATA,
        "partition": PARTITION,
        "algorithm": method[config.get("method", "sisa")],
        "sigma_schedule": Geometric(config.get("gamma", 0.9), config.get("k0", 2)),
        "rounds": 12,
        "batch_size": 16,
    }


@pytest.fixture
def trial():
    made = []

    def make(build=build, every=3, **config):
        made.append(PisaTrainable(config, build=build, every=every))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def weights(trial, tmp_path):
    loop = trial._steps.loop
    return loop.fleet.export(loop.progress.round, str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("method", ["sisa", "sisa_d", "adam"])
def test_its_steps_are_the_rounds_of_a_run(tmp_path, trial, method):
    one = trial(method=method, **{"as": METHODS})
    rows = [one.step() for _ in range(4)]
    whole = run(tmp_path / "run", data=DATA, algorithm=METHODS[method], rounds=12, evaluate_every=3)
    assert [row["round"] for row in rows] == [3, 6, 9, 12]
    assert [row["done"] for row in rows] == [False, False, False, True]
    assert weights(one, tmp_path) == whole.weights_sha256
    for row, there in zip(rows, whole.history, strict=True):
        assert row["validation_accuracy"] == there["validation_accuracy"]
        assert (row["sigma"], row["k0"], row["gamma"]) == (there["sigma"], 2, 0.9)


def test_a_checkpoint_is_the_whole_state(tmp_path, trial):
    one, other = trial(), trial()
    one.step()
    one.save_checkpoint(str(tmp_path / "saved"))
    expected = [one.step() for _ in range(3)]
    other.step(), other.step()
    other.load_checkpoint(str(tmp_path / "saved"))
    again = [other.step() for _ in range(3)]
    assert [row["train_loss"] for row in again] == [row["train_loss"] for row in expected]
    assert weights(other, tmp_path) == weights(one, tmp_path)


def test_settings_change_with_the_state_of_another(tmp_path, trial):
    """What PBT does: reset_config, then the other's checkpoint. sigma is the other's, times the ratio of the firsts."""
    good, bad = trial(k0=1), trial(k0=5, sigma=0.3)
    row = good.step()
    good.save_checkpoint(str(tmp_path / "good"))
    bad.step()
    assert bad.reset_config({"k0": 4, "sigma": 0.6, "gamma": 0.5, "rho": 60.0})
    bad.load_checkpoint(str(tmp_path / "good"))
    after = bad.step()
    assert after["round"] == 6
    assert (after["k0"], after["gamma"]) == (4, 0.5)
    assert after["sigma"] == pytest.approx(2 * row["sigma"] / 0.5)  # doubled, and grown in round 4
    assert bad._steps.loop.job.method == SISA(sigma=0.6, rho=60.0, lam=1e-3)


def test_a_period_that_was_chosen_goes_with_the_state_but_a_mutated_one_takes_its_place(tmp_path, trial):
    def online(config):
        schedule = OnlineK0(k0=config["k0"], gamma=0.8, share=1.0, longer=0.0, shorter=0.0, most=1e9)
        return {**build(config), "sigma_schedule": schedule, "rounds": 24}

    donor, taker = trial(online, k0=1, sigma=1e4), trial(online, k0=1, sigma=1e4)
    assert donor._steps.loop.job.method.sigma < 1e4  # only a hint
    chosen = donor.step()["k0"], donor.step()["k0"]
    assert chosen[1] > 1
    donor.save_checkpoint(str(tmp_path))
    taker.load_checkpoint(str(tmp_path))
    rows = taker.step(), donor.step()
    assert rows[0]["k0"] == chosen[1]
    assert rows[0]["sigma"] == rows[1]["sigma"]
    assert taker.reset_config({"k0": 17, "sigma": 1e4})
    taker.load_checkpoint(str(tmp_path))
    assert taker.step()["k0"] == 17


def test_what_the_automatic_start_found_goes_with_the_state(tmp_path, trial):
    def automatic(config):
        return {**build(config), "algorithm": SISAD()}

    one, other = trial(automatic), trial(automatic)
    one.step()
    one.save_checkpoint(str(tmp_path / "saved"))
    other.load_checkpoint(str(tmp_path / "saved"))
    assert other._steps.loop.job.method == one._steps.loop.job.method
    assert other.step()["train_loss"] == one.step()["train_loss"]


def test_nothing_of_an_earlier_trial_is_left(tmp_path, trial):
    """With reused actors a trial without a checkpoint begins where its predecessor stopped, unless that is reset."""
    used, fresh = trial(k0=1), trial(k0=3)
    used.step(), used.step()
    assert used.reset_config({"k0": 3})
    assert used.step()["train_loss"] == fresh.step()["train_loss"]
    assert weights(used, tmp_path) == weights(fresh, tmp_path)


@pytest.mark.parametrize("changes", [{"batch": 8}, {"method": "adam", "as": {"adam": SyncOptimizer(lr=0.1)}}])
def test_other_settings_open_the_run_anew(tmp_path, trial, changes):
    def wide(config):
        return {**build(config), "batch_size": config.get("batch", 16)}

    used, fresh = trial(wide), trial(wide, **changes)
    used.step()
    assert used.reset_config(changes)
    assert used.step()["train_loss"] == fresh.step()["train_loss"]
    assert weights(used, tmp_path) == weights(fresh, tmp_path)


def test_a_run_that_goes_to_nan_reports_the_worst_until_it_gets_another_state(tmp_path, trial):
    def fragile(config):
        return {**build(config), "algorithm": SISA(sigma=config["sigma"], rho=0.0), "sigma_schedule": Constant()}

    good, bad = trial(fragile, sigma=10.0), trial(fragile, sigma=1e-30)
    row = bad.step()
    assert row["diverged"]
    assert (row["round"], row["done"]) == (3, False)
    good.step()
    good.save_checkpoint(str(tmp_path / "good"))
    bad.save_checkpoint(str(tmp_path / "bad"))  # of the start: there is no other good state
    assert bad.step()["round"] == 6
    bad.load_checkpoint(str(tmp_path / "good"))
    row = bad.step()
    assert row["diverged"]  # with the same sigma
    assert bad.reset_config({"sigma": 10.0})
    bad.load_checkpoint(str(tmp_path / "good"))
    row = bad.step()
    assert not row["diverged"]
    assert row["round"] == 6
    assert all(math.isfinite(value) for key, value in row.items() if key.startswith("validation"))


def test_states_of_another_problem_are_refused(tmp_path, trial):
    def other(config):
        return {**build(config), "model": lambda: torch.nn.Linear(64, 10)}

    one = trial()
    one.save_checkpoint(str(tmp_path / "saved"))
    with pytest.raises(ConfigError, match="is of other data or another model"):
        trial(other).load_checkpoint(str(tmp_path / "saved"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no complete checkpoint"):
        one.load_checkpoint(str(tmp_path / "empty"))


def test_without_a_build_it_says_so():
    with pytest.raises(ConfigError, match="has no build"):
        PisaTrainable({})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"rho": 1.0}, {"rho": 0.0}),
        ({"sigma": Auto(1e-3)}, {"sigma": Auto(1e3)}),
        ({"sigma": 0.3, "lam": 0.1}, {"sigma": 3.0, "lam": 0.1}),
        ({"sigma": 1.0, "rho": 1.0}, {}),
    ],
)
def test_a_trial_that_begins_finds_a_start_of_its_own(tmp_path, trial, before, after):
    def free(config):
        return {**build({}), "algorithm": PISA(**config)}

    used, fresh = trial(free, **before), trial(free, **after)
    used.step()
    assert used.reset_config(after)
    assert used.step()["train_loss"] == fresh.step()["train_loss"]
    assert weights(used, tmp_path) == weights(fresh, tmp_path)


def test_what_is_automatic_is_taken_from_the_state(tmp_path, trial):
    def free(config):
        return {**build({}), "algorithm": PISA(**config)}

    given, automatic = trial(free, sigma=5.0, rho=1.0), trial(free)
    given.step()
    given.save_checkpoint(str(tmp_path / "saved"))
    automatic.load_checkpoint(str(tmp_path / "saved"))
    assert automatic._steps.loop.job.method == PISA(sigma=5.0, rho=1.0)
    assert automatic.step()["train_loss"] == given.step()["train_loss"]


def test_metrics_of_a_lost_run_are_the_worst_whatever_they_are_called(trial):
    def measured(config):
        return {
            **build({}),
            "algorithm": SISA(sigma=1e-30, rho=0.0),
            "metrics": lambda output, target: {"f1": output.argmax(1) == target},
        }

    row = trial(measured).step()
    assert row["validation_f1"] == -math.inf
    assert row["validation_loss"] == row["train_loss"] == math.inf


def test_a_reason_to_stop_ends_a_trial(trial):
    def short(config):
        return {**build({}), "stop_seconds": 1e-9}

    one = trial(short)
    assert one.step()["done"] or one.step()["done"]


def test_asynchronous_rounds_are_refused():
    with pytest.raises(ConfigError, match="cannot take over a state in asynchronous rounds"):
        PisaTrainable({}, build=lambda config: {**build({}), "asynchronous": Asynchronous()})
