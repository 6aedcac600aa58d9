"""Every case, trap, limit and Newton-Schulz output of vectors.json, at rtol 1e-8 in float64."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from problems import LeastSquares, adam_root, library, textbook

from pisa_ray.algorithm import (
    NSISA,
    PISA,
    SISA,
    SISAD,
    AdaGrad,
    Adam,
    EmpiricalFisher,
    Hessian,
    HessianDiagonal,
    Identity,
    Instantaneous,
    RMSProp,
)
from pisa_ray.algorithm.newton_schulz import orthogonalise, shape_scale
from pisa_ray.schedulers import Geometric

CASES = [
    "pisa_identity",
    "pisa_identity_k0_2",
    "pisa_hessian",
    "pisa_hessian_diag",
    "pisa_empirical_fisher",
    "sisa_rmsprop",
    "sisa_rmsprop_bias_corrected",
    "sisa_adagrad",
    "nsisa_square",
    "nsisa_square_nesterov_rmsprop",
    "nsisa_tall",
    "nsisa_wide",
    "nsisa_zero_perturbation",
]


def close(actual, expected):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(torch.as_tensor(actual, dtype=torch.float64), expected, rtol=1e-8, atol=1e-12)


def second_moment(config):
    if config["second_moment"] == "rmsprop":
        return (Adam if config["bias_correction"] else RMSProp)(config["beta"])
    return {"adagrad": AdaGrad, "instantaneous": Instantaneous}[config["second_moment"]]()


def setting(vectors, name):
    config = vectors["cases"][name]["config"]
    problem = LeastSquares.of(vectors["problems"][config["problem"]])
    methods = []
    for i, (sigma, rho) in enumerate(zip(config["sigma0"], config["rho"], strict=True)):
        common = {"sigma": sigma, "rho": rho, "lam": problem.lam}
        if config["method"] == "pisa":
            Q = {
                "identity": Identity(),
                "hessian": Hessian(),
                "hessian_diag": HessianDiagonal(),
                "empirical_fisher": EmpiricalFisher(),
            }[config["Q"]]
            if config["Q"] == "empirical_fisher":  # the reference sums over rows, the library takes their mean
                common["rho"] *= len(problem.A[i])
            methods.append(PISA(**common, preconditioner=Q))
        elif config["method"] == "sisa":
            methods.append(SISA(**common, second_moment=second_moment(config), eps=config["eps"]))
        else:
            methods.append(
                NSISA(
                    **common,
                    rest=None,
                    matrix_moment=second_moment(config),
                    eps=config["eps"],
                    mu=config["mu"],
                    nesterov=config["nesterov"],
                    perturbation=config["perturbation"],
                )
            )
    return problem, methods, [Geometric(gamma, config["k0"]) for gamma in config["gamma"]]


def test_no_case_is_forgotten(vectors):
    assert set(vectors["cases"]) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_case(vectors, name):
    iterations = vectors["cases"][name]["iterations"]
    assert len(iterations) == 5
    for actual, expected in zip(library(*setting(vectors, name), diagnose=True), iterations, strict=False):
        for key in ("w", "w_i", "pi_i", "sigma"):
            got = getattr(actual, key)
            close(torch.stack(got) if key in ("w_i", "pi_i") else got, expected[key])
        for key in ("augmented_lagrangian", "primal_residual", "dual_residual", "consensus_residual"):
            close(actual.diagnostics[key], expected["diagnostics"][key])


def after_five(run):
    return next(islice(run, 4, None)).w


def momentum_direction(m: int, mu: float):
    buffers = [0.0] * m

    def direction(i, g):
        buffers[i] = mu * buffers[i] + g
        return orthogonalise(buffers[i]) * shape_scale(*g.shape)

    return direction


@pytest.mark.parametrize("index", range(6))
def test_trap(vectors, index):
    """The textbook with the mistake gives the trap, without it the library's result: the cases above would catch it."""
    assert len(vectors["traps"]) == 6
    trap = vectors["traps"][index]
    config = vectors["cases"][trap["case"]]["config"]
    problem, methods, schedules = setting(vectors, trap["case"])

    def parts():
        if config["method"] == "sisa":
            return {"root": adam_root(2, config["beta"], config["eps"])}
        if config["method"] == "nsisa":
            return {"root": lambda i, d, k: d.abs() + config["eps"], "direction": momentum_direction(2, config["mu"])}
        return {}

    arguments = (problem, config["sigma0"], config["rho"], schedules)
    right = after_five(library(problem, methods, schedules))
    close(next(islice(textbook(*arguments, **parts()), 4, None)), right)
    wrong = next(islice(textbook(*arguments, **parts(), mistake=trap["mistake"]), 4, None))
    close(wrong, trap["w_after_5"])
    assert ((right - wrong) / right).abs().max() > 0.9 * trap["relative_gap_to_correct"] > 0.03


def test_newton_schulz_outputs(vectors):
    for entry in vectors["newton_schulz"]:
        x = torch.tensor(entry["input"], dtype=torch.float64)
        close(orthogonalise(x), entry["output"])
        close(orthogonalise(torch.stack([x, x]))[1], entry["output"])
        close(shape_scale(*x.shape), entry["shape_scale"])
        close(torch.linalg.svdvals(orthogonalise(x)), entry["singular_values_of_output"])


@pytest.mark.parametrize("index", range(10))
def test_limits(vectors, index):
    """Divergence below the edge, convergence above it, freezing where sigma grows too fast."""
    runs = vectors["limits"]["pisa_identity_runs"]
    assert len(runs) == 10
    run, problem = runs[index], LeastSquares.of(vectors["problems"]["vector"])
    methods = [PISA(sigma=run["sigma0"], rho=run["rho"], lam=problem.lam)] * 2
    iterates = library(problem, methods, [Geometric(run["gamma"], run["k0"])] * 2)
    if run["diverged"]:
        last = next(islice(iterates, 999, None))
        assert not last.w.norm() < 1e3
        return
    growth = -math.log(run["gamma"]) / run["k0"]
    rounds = min(3000, int(100 / growth)) if growth else 3000  # settled by then; sigma must not overflow on the way
    last = next(islice(iterates, rounds - 1, None))
    torch.testing.assert_close(last.w, torch.tensor(run["w"], dtype=torch.float64), rtol=1e-8, atol=1e-9)


def test_stability_edge(vectors):
    problem = LeastSquares.of(vectors["problems"]["vector"])
    for edge in vectors["limits"]["stability_edge"]:
        problem.lam = edge["lambda"]
        for factor, stable in ((1.01, True), (0.99, False)):
            method = PISA(sigma=factor * edge["smallest_stable_sigma"], rho=edge["rho"], lam=problem.lam)
            far = next(islice(library(problem, [method] * 2, [Geometric(1.0, 1)] * 2), 1500, None)).w.norm()
            assert (far < 10) == stable


def test_sisa_d_with_all_and_with_partial_reporters(vectors):
    """Messages (6) keep their own penalty when not every shard reports."""
    problem = LeastSquares.of({**vectors["problems"]["vector"], "lambda": 0.0})
    methods = [SISAD(sigma=9, rho=4, beta=0.9, eps=1e-4)] * 2
    partial = [(0, 1), (0,), (1,), (0,), (0, 1)]
    for reporters, expected in [
        (None, (0.1882845044, -0.07010785581, 0.6862861004)),
        (lambda iteration: partial[iteration - 1], (0.240498053, -0.1592648014, 0.746110223)),
    ]:
        run = library(problem, methods, [Geometric(0.9, 2)] * 2, reporters=reporters)
        close(after_five(run).flatten(), expected)
