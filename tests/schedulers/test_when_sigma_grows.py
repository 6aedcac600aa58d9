"""In which rounds sigma grows, by hand: first in round k0, after its consensus and before its gradients."""

from __future__ import annotations

import pytest
from runs import METHODS, run

from pisa_ray import SISA, Geometric


def penalties(schedule, rounds):
    sigma, found = 1.0, []
    for round_ in range(1, rounds + 1):
        sigma = schedule.grow(sigma, round_)
        found.append(sigma)
    return found


@pytest.mark.parametrize(
    ("k0", "expected"),
    [
        (1, [2, 4, 8, 16, 32, 64, 128]),
        (2, [1, 2, 2, 4, 4, 8, 8]),
        (3, [1, 1, 2, 2, 2, 4, 4]),
        (7, [1, 1, 1, 1, 1, 1, 2]),
        (8, [1] * 7),
    ],
)
def test_a_period_ends_with_growth(k0, expected):
    assert penalties(Geometric(0.5, k0), 7) == expected


def test_a_run_steps_with_the_penalty_of_its_round(tmp_path):
    result = run(
        tmp_path / "run",
        rounds=5,
        evaluate_every=1,
        algorithm=SISA(sigma=2.0, rho=3.0),
        sigma_schedule=Geometric(0.5, 3),
    )
    assert [row["sigma"] for row in result.history] == [2.0, 2.0, 4.0, 4.0, 4.0]


def test_the_w_of_a_round_is_made_with_the_penalty_that_its_messages_had(tmp_path):
    """What grows in round 3 changes the messages of round 3, so its w and no earlier one."""
    grows, rests = (
        run(tmp_path / str(k0), rounds=3, evaluate_every=1, method="sisa", sigma_schedule=Geometric(0.5, k0)).history
        for k0 in (3, 100)
    )
    assert METHODS["sisa"].lam
    losses = [[row["test_loss"] for row in rows] for rows in (grows, rests)]
    assert losses[0][:2] == losses[1][:2]
    assert losses[0][2] != losses[1][2]
    assert grows[2]["train_loss"] == rests[2]["train_loss"]  # at the w that the round began with
