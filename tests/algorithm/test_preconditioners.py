"""Preconditioners against dense matrices, and the conjugate gradients that solve with them."""

from __future__ import annotations

import pytest
import torch

from pisa_ray.algorithm import Curvature, EmpiricalFisher, FisherDiagonal, HessianDiagonal
from pisa_ray.algorithm.preconditioners import conjugate_gradients


def mlp_curvature(seed=0):
    torch.manual_seed(seed)
    x, y = torch.randn(7, 3, dtype=torch.float64), torch.randint(2, (7,))
    w = torch.randn(3 * 4 + 4 * 2, dtype=torch.float64)

    def outputs(flat):
        return torch.tanh(x @ flat[:12].view(3, 4)) @ flat[12:].view(4, 2)

    def losses(z):
        return torch.nn.functional.cross_entropy(z, y, reduction="none")

    def sample_loss(flat, j):
        return losses(outputs(flat))[j]

    return Curvature(w, outputs, lambda z: losses(z).mean(), sample_loss, 7), outputs, losses, w


def test_curvature_products_equal_dense_matrices():
    curvature, outputs, losses, w = mlp_curvature()
    H = torch.func.hessian(lambda flat: losses(outputs(flat)).mean())(w)
    J = torch.func.jacrev(outputs)(w).flatten(0, 1)
    z = outputs(w)
    H_out = torch.func.hessian(lambda flat: losses(flat.view_as(z)).mean())(z.flatten())
    G = torch.func.jacrev(lambda flat: losses(outputs(flat)))(w)
    v = torch.randn_like(w)
    torch.testing.assert_close(curvature.hessian(v), H @ v)
    torch.testing.assert_close(curvature.gauss_newton(v), J.T @ H_out @ J @ v)
    with torch.no_grad():  # as inside an optimizer's step
        torch.testing.assert_close(torch.stack(list(curvature.sample_gradients())), G)
    torch.testing.assert_close(FisherDiagonal(eta=0.01)(curvature), (G * G).mean(0).clamp(max=0.01))
    torch.testing.assert_close(EmpiricalFisher()(curvature)(v), G.T @ G @ v / 7)
    torch.testing.assert_close(HessianDiagonal()(curvature), H.diagonal().abs())
    torch.testing.assert_close(HessianDiagonal(eta=0.1)(curvature), H.diagonal().abs().clamp(max=0.1))
    torch.testing.assert_close(FisherDiagonal()(curvature), (G * G).mean(0))
    with pytest.raises(ValueError, match="needs a Curvature with a generator"):
        HessianDiagonal(probes=1)(curvature)
    curvature.generator = torch.Generator().manual_seed(0)
    first = HessianDiagonal(probes=2)(curvature)
    curvature.generator.manual_seed(0)
    assert torch.equal(first, HessianDiagonal(probes=2)(curvature))
    estimate = HessianDiagonal(probes=800)(curvature)
    assert (estimate - H.diagonal().abs()).norm() < 0.3 * H.diagonal().norm()


def test_conjugate_gradients_solve_and_never_step_uphill():
    def local_solve(Q, d, sigma, rho):
        return conjugate_gradients(Q, d, sigma, rho)

    torch.manual_seed(5)
    B = torch.randn(12, 12, dtype=torch.float64)
    d = torch.randn(12, dtype=torch.float64)
    convex, indefinite = B @ B.T, B + B.T
    eye = torch.eye(12, dtype=torch.float64)
    exact = torch.linalg.solve(2 * eye + 0.5 * convex, d)
    torch.testing.assert_close(local_solve(lambda v: convex @ v, d, 2.0, 0.5), exact, rtol=1e-11, atol=1e-12)
    with pytest.warns(UserWarning, match="after 2 products: raise sigma or lower rho"):
        conjugate_gradients(lambda v: convex @ v, d, 2.0, 0.5, most=2)
    step = local_solve(lambda v: indefinite @ v, d, 2.0, 5.0)
    assert step.dot(d) > 0
    assert step.norm() <= d.norm() / 2.0 * 1.001  # never longer than the step without curvature
    negative = local_solve(lambda v: -v, d, 2.0, 5.0)
    torch.testing.assert_close(negative, d / 2.0)
