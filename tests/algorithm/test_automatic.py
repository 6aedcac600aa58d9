"""The automatic start: the curvature it finds, and what the methods make of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pisa_ray.algorithm import NSISA, PISA, SISA, SISAD, Auto, Hessian, Slope, Start, curvature_along, number, policy
from pisa_ray.algorithm.automatic import choose


def found(H: np.ndarray, w: np.ndarray, P: np.ndarray, steps: int, b: np.ndarray | float = 0.0) -> float:
    """The curvature of w' H w / 2 - b' w at w in a metric."""

    def gradient(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(H @ x.numpy() - b)

    point = torch.from_numpy(w)
    return curvature_along(gradient, point, gradient(point), torch.from_numpy(P), steps)


def started(rule, start: Start):
    """The rule with its numbers set."""
    return rule.with_numbers(policy(rule).numbers(start))


def quadratic(seed: int, p: int = 12, spread: float = 100.0) -> np.ndarray:
    """A Hessian with eigenvalues from 1/spread to 1, one of them well above the others."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((p, p)))
    return (q * np.r_[1.0, np.geomspace(0.3, 1 / spread, p - 1)]) @ q.T


@given(seed=st.integers(0, 200), scale=st.floats(1e-4, 1e4), metric=st.booleans())
def test_many_steps_find_the_largest_curvature_of_a_quadratic_in_any_metric(
    seed: int, scale: float, *, metric: bool
) -> None:
    rng = np.random.default_rng(seed)
    H = scale * quadratic(seed)
    w = rng.standard_normal(len(H))
    P = rng.uniform(0.5, 2, len(H)) if metric else np.ones(len(H))

    h = found(H, w, P, steps=40)

    exact = np.linalg.eigvalsh(H / np.sqrt(np.outer(P, P)))[-1]
    assert h == pytest.approx(exact, rel=0.02)


@given(seed=st.integers(0, 200), factor=st.floats(0.1, 10))
def test_one_step_is_the_curvature_along_the_first_move(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    H, w = quadratic(seed), rng.standard_normal(12)
    g, P = H @ w, factor * rng.uniform(0.5, 2, 12)

    h = found(H, w, P, steps=1)

    root = np.sqrt(P)
    assert h == pytest.approx(np.linalg.norm(H @ (g / P) / root) / np.linalg.norm(g / root), rel=1e-6)


def test_it_can_be_found_at_the_origin() -> None:
    H, b = quadratic(3), np.ones(12)
    assert found(H, np.zeros(12), np.ones(12), steps=40, b=b) == pytest.approx(1.0, rel=0.02)


def test_float32_suffices() -> None:
    H = quadratic(5).astype(np.float32)
    w = np.random.default_rng(0).standard_normal(12).astype(np.float32)
    assert found(H, w, np.ones(12, np.float32), steps=40) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize(
    ("gradient", "expected"),
    [(torch.ones_like, 0.0), (torch.zeros_like, 0.0), (lambda x: x * np.nan, np.nan)],
)
def test_flat_and_broken_losses_are_told(gradient: object, expected: float) -> None:
    w = torch.ones(3)
    h = curvature_along(gradient, w, gradient(w), torch.ones(3), steps=8)  # type: ignore[operator, arg-type]
    assert h == expected or np.isnan([h, expected]).all()


def test_slope_is_a_mean_over_those_who_spoke() -> None:
    g = np.array([[3.0, -1.0], [1.0, 1.0]])
    alpha = np.array([0.25, 0.25])  # of two more, nothing is known
    rows = np.c_[g, abs(g), g**2, np.ones(2)]

    slope = Slope.of(torch.from_numpy(alpha @ rows))

    assert slope.mean.tolist() == [2, 0]
    assert slope.size.tolist() == [2, 1]
    assert slope.typical([slice(0, 1), slice(1, 2)]) == pytest.approx(np.sqrt(3))


@given(scale=st.floats(1e-3, 1e3))
def test_the_start_follows_the_scale_of_the_loss(scale: float) -> None:
    """C F has c times the gradients and curvature; in the metric of SISA-D the curvature is that of F."""
    one, other = Start(0.5, 0.01), Start(0.5 * scale, 0.01 * scale)
    assert other.h / one.h == pytest.approx(scale)
    for method in (PISA(), SISA()):
        a, b = started(method, one), started(method, other)
        assert number(b.sigma) / number(a.sigma) == pytest.approx(scale, rel=0.02)  # three digits are kept
        q = 1 if isinstance(method, PISA) else scale
        assert number(b.rho) * q / number(a.rho) == pytest.approx(scale, rel=0.02)
    a, b = started(SISAD(), one), started(SISAD(), Start(0.5, 0.01 * scale))
    assert (a.sigma, a.rho) == (b.sigma, b.rho)
    assert number(b.eps) / number(a.eps) == pytest.approx(scale, rel=0.02)


def test_what_is_given_stays() -> None:
    start = Start(2.0, 0.1)
    assert started(PISA(sigma=7), start) == PISA(sigma=7, rho=2)
    assert started(PISA(rho=0), start) == PISA(sigma=4, rho=0)
    assert started(PISA(preconditioner=Hessian()), start) == PISA(sigma=2, rho=1, preconditioner=Hessian())
    assert started(PISA(rho=0.1, preconditioner=Hessian()), start).sigma == 4
    assert started(SISA(rho=3), start) == SISA(sigma=3.2, rho=3)  # 2 sigma + 4 rho q is 7.6, and 3 h 6
    assert started(SISAD(sigma=30), start) == SISAD(sigma=30, rho=570, eps=1e-4)
    assert number(started(SISAD(rho=0), Start(52, 0.1)).sigma) == 78  # as much as with rho = 19 sigma
    assert started(SISAD(eps=0.5), Start(52, 0.1)) == SISAD(sigma=2, rho=38, eps=0.5)
    assert started(NSISA(), start) == NSISA(sigma=20, rho=80)
    assert not any(
        policy(method).probes for method in (NSISA(), SISAD(sigma=3), SISA(sigma=1, rho=1), PISA(sigma=1, rho=0))
    )
    assert all(policy(method).probes for method in (SISAD(), SISA(sigma=1), PISA(rho=1)))


hints = st.floats(1e-6, 1e6).map(Auto)


@given(sigma=hints, rho=st.one_of(st.floats(0, 1e4, allow_subnormal=False), hints), h=st.floats(1e-3, 1e3))
def test_whatever_is_hinted_at_is_stable(sigma: Auto, rho: float | Auto, h: float) -> None:
    """2 sigma + 4 rho q >= 3 h, and where hints allow it sigma is what they say."""
    for method, q in ((PISA(sigma=sigma, rho=rho), 1.0), (SISA(sigma=sigma, rho=rho), 0.1)):
        now = started(method, Start(h, 0.1))
        have, weight = number(now.sigma), number(now.rho) * q
        assert 2 * have + 4 * weight >= 3 * h * 0.99  # three digits are kept
        least = max(0.3 * h, (3 * h - 4 * weight) / 2)
        assert sigma.hint is not None
        assert have == pytest.approx(np.clip(sigma.hint, least, max(3 * h, least)), rel=0.006)


def test_wrong_hints_are_refused() -> None:
    with pytest.raises(ValueError, match="hint is 0, but"):
        Auto(0)
    with pytest.raises(ValueError, match="sigma or rho is still to be set"):
        number(Auto())
    assert choose(3.0, 1, 2, 2.5) == 3.0
