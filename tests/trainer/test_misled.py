"""Losses that explode or turn, and what a run with an automatic sigma makes of a loss that has turned."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from runs import events, run, states

from pisa_ray import SISAD
from pisa_ray.schedulers import LagrangianDescent
from pisa_ray.trainer import misled
from pisa_ray.trainer.manifest import Progress
from pisa_ray.trainer.misled import has_exploded, has_turned

ROUNDS = 200


def told(losses: list[float] | np.ndarray, rounds: int = ROUNDS) -> list[int]:
    """The rounds after which a loss has turned."""
    memory: dict[str, float] = {}
    found = []
    for round_, loss in enumerate(losses, start=1):
        if has_turned(memory, float(loss), rounds):
            found.append(round_)
        memory = json.loads(json.dumps(memory))  # what is saved is enough
    return found


def fall(low: float = 0.1) -> np.ndarray:
    return low + np.exp(-np.arange(ROUNDS) / 20)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("noise", [0.0, 0.03, 0.3])
@pytest.mark.parametrize("shift", [0.0, -5.0])
def test_a_loss_that_falls_and_then_rests_has_not_turned(seed: int, noise: float, shift: float) -> None:
    losses = fall() + shift + noise * np.random.default_rng(seed).standard_normal(ROUNDS)
    assert not told(losses)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("factor", [2.0, 5.0])
def test_a_loss_that_rises_to_a_multiple_has_turned(seed: int, factor: float) -> None:
    losses = fall() * np.where(np.arange(ROUNDS) < 100, 1.0, factor)
    losses *= 1 + 0.05 * np.random.default_rng(seed).standard_normal(ROUNDS)
    assert told(losses) == [110]


def test_a_single_round_that_is_an_outlier_is_no_turn() -> None:
    losses = fall()
    losses[120] *= 20
    assert not told(losses)


def test_each_rise_is_told_once_and_four_at_most() -> None:
    steps = np.repeat([1.0, 0.5, 0.8, 0.8, 1.2, 2.0, 3.0, 5.0, 8.0, 12.0], 10)
    assert told(steps) == [30, 50, 60, 70]


def test_a_round_in_which_nobody_reported_does_not_count() -> None:
    steps = np.repeat([1.0, 2.0], 10)
    assert told(steps) == [20]
    assert told(np.insert(steps, [3, 12], math.nan)) == [22]


def test_windows_are_a_share_of_a_long_run() -> None:
    steps = np.repeat([1.0, 2.0], 50)
    assert told(steps, rounds=1000) == [100]


@pytest.mark.parametrize(
    ("first", "loss", "expected"),
    [(1.0, 10.1, True), (1.0, 9.9, False), (-50.0, 100.0, False), (-50.0, 401.0, True), (1e-6, 9.1, True)],
)
def test_an_explosion_is_measured_by_the_first_loss(first: float, loss: float, *, expected: bool) -> None:
    assert has_exploded(Progress(round=3, first_loss=first), loss) is expected
    assert not has_exploded(Progress(), loss)


@pytest.fixture
def nervous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any rise over two rounds is a turn."""
    for name, value in (("WINDOW", 2), ("RISE", 0.0), ("ERRORS", 0.0)):
        monkeypatch.setattr(misled, name, value)


@pytest.mark.usefixtures("nervous")
def test_sigma_is_raised_and_a_resume_goes_on_alike(tmp_path):
    setting = {"algorithm": SISAD(), "sigma_schedule": None, "rounds": 30, "evaluate_every": 9, "batch_size": 2}
    straight = run(tmp_path / "straight", **setting)
    raised = events(straight.path, "sigma_raised")
    assert raised
    sigmas = {row["round"]: row["sigma"] for row in straight.history}
    (start,) = events(straight.path, "started")
    planned = start["sigma"] * 10 * 2 ** len(raised)  # after the trapezoid's cool-down
    assert sigmas[30] == pytest.approx(planned)

    cut = run(tmp_path / "resumed", **setting, stop_test_accuracy=1e-6)
    assert cut.history[-1]["round"] == 9  # within a window
    resumed = run(tmp_path / "resumed", **setting, resume=True)
    assert resumed.history[-1]["round"] == 30
    assert [e["round"] for e in events(resumed.path, "sigma_raised")] == [e["round"] for e in raised]
    assert resumed.weights_sha256 == straight.weights_sha256
    assert states(resumed) == states(straight)


@pytest.mark.usefixtures("nervous")
@pytest.mark.parametrize(
    "setting",
    [
        {"algorithm": SISAD(sigma=1, rho=9), "sigma_schedule": None},
        {"algorithm": SISAD(), "sigma_schedule": LagrangianDescent()},
    ],
)
def test_a_sigma_that_is_given_or_that_a_schedule_decides_is_let_be(tmp_path, setting):
    result = run(tmp_path / "run", rounds=30, batch_size=2, **setting)
    assert not events(result.path, "sigma_raised")
