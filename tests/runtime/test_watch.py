"""Warnings of a sigma that is too small, or grows too fast."""

from __future__ import annotations

import re

import pytest
from runs import events, run

from pisa_ray import NSISA, PISA, SISA, SISAD, Constant, Geometric, Matched, ResidualBalancing, Trapezoid
from pisa_ray.algorithm import Hessian
from pisa_ray.cli.main import main
from pisa_ray.trainer.watch import Watch


def told(path):
    return [event["message"] for event in events(path, "warning")]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (PISA(sigma=0.1, rho=0.1), True),
        (PISA(sigma=10, rho=0), False),
        (PISA(sigma=0.1, rho=10), False),
        (PISA(sigma=0.1, rho=1, preconditioner=Hessian()), False),
        (SISA(sigma=0.01, rho=0), True),
        (SISA(sigma=1, rho=200), False),
        (SISAD(sigma=0.1, rho=0.9), True),
        (SISAD(sigma=1e-7), True),  # rho is automatic
        (SISAD(sigma=20, rho=380), False),
        (NSISA(sigma=1e-3, rho=1e-3), False),  # its directions have no curvature
    ],
)
def test_a_sigma_below_the_edge_is_told(tmp_path, method, expected):
    run(tmp_path / "run", algorithm=method, sigma_schedule=Constant(), rounds=1, warn=True)
    assert ["below the edge of stability" in text for text in told(tmp_path / "run")] == [True] * expected


def test_looking_changes_nothing(tmp_path):
    one, other = (run(tmp_path / str(warn), method="sisa", rounds=4, warn=warn) for warn in (False, True))
    assert one.weights_sha256 == other.weights_sha256
    assert one.history[-1]["sample_gradients"] == other.history[-1]["sample_gradients"]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Geometric(0.7, 1), True),
        (Geometric(0.9, 1), True),
        (Geometric(0.95, 10), False),
        (Matched(10), False),
        (Matched(1e5), True),
        (Trapezoid(), False),
        (Constant(), False),
        (ResidualBalancing(), False),
    ],
)
@pytest.mark.parametrize("method", [SISA(sigma=0.3, rho=30), SISAD(sigma=20, rho=380)])
def test_growth_that_freezes_is_told_once(tmp_path, schedule, expected, method):
    run(tmp_path / "run", algorithm=method, sigma_schedule=schedule, rounds=60, evaluate_every=5, warn=True)
    assert [text for text in told(tmp_path / "run") if "w is freezing" in text] == told(tmp_path / "run")
    assert len(told(tmp_path / "run")) == expected


def test_a_run_that_has_converged_is_not_told_to_freeze():
    watch = Watch(Constant(), 400, 5.0)
    moves = [1.0, 1e-2, 1e-4, 1e-6]
    rows = [{"round": 50 * k, "sigma": 5.0, "consensus_move": move} for k, move in enumerate(moves, 1)]
    assert [watch.frozen(row) for row in rows] == [None] * 4


def test_the_way_is_counted_by_the_sigmas_between_two_evaluations():
    """Moves of 1 / sigma: of sigma 1, 2, 4, ... the way of 30 rounds is 2, and hardly anything is left at round 8."""
    watch = Watch(Geometric(0.5, 1), 30, 0.5)
    assert watch.frozen({"round": 4, "sigma": 8.0, "consensus_move": 1.0}) is None
    assert watch._way == pytest.approx(1 + 1 / 2 + 1 / 4 + 1 / 8)
    text = watch.frozen({"round": 8, "sigma": 128.0, "consensus_move": 1.0})
    assert text == (
        "w is freezing: sigma, now 128, lets it move 0.0078 in the 22 rounds that are left, after 2 so far; raise k0 "
        "or gamma, or plan less growth."
    )
    assert watch.frozen({"round": 12, "sigma": 2048.0, "consensus_move": 1.0}) is None
    assert watch.frozen({"round": 13, "sigma": 4096.0, "consensus_move": None}) is None


def test_the_command_line_tells(tmp_path, capfd):
    (tmp_path / "c.yaml").write_text(
        "data: {dataset: digits}\npartition: {kind: iid, shards: 3}\nmodel: {kind: mlp, hidden: [8]}\n"
        "algorithm: {kind: sisa, sigma: 0.05, rho: 0}\nsigma_schedule: {kind: geometric, gamma: 0.5, k0: 1}\n"
        "rounds: 40\nevaluate_every: 10\nworkers: 0\n"
    )
    assert main(["train", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")]) == 0
    shown = capfd.readouterr().err
    assert re.search(r"sigma 0.05 with rho 0 is [\d.e+]+ times below the edge of stability at the initial model", shown)
    assert "w is freezing" in shown
