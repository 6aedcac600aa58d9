"""Settings of methods, preconditioners and schedules that make no sense are refused."""

from __future__ import annotations

import pytest

from pisa_ray.algorithm import NSISA, PISA, SISA, SISAD, Adam, HessianDiagonal, Identity
from pisa_ray.schedulers import Geometric


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SISA(sigma=0), "sigma is 0"),
        (lambda: SISA(sigma=float("nan")), "sigma is nan"),
        (lambda: PISA(rho=-1), "rho is -1"),
        (lambda: SISAD(lam=-0.1), "SISAD.lam is -0.1"),
        (lambda: SISAD(local_steps=0), "local_steps is 0"),
        (lambda: PISA(local_steps=1.5), "local_steps is 1.5"),
        (lambda: SISAD(beta=1.0), "beta is 1.0"),
        (lambda: SISAD(eps=0.0), "eps is 0.0"),
        (lambda: NSISA(rest=None, mu=1.0), "mu is 1.0"),
        (lambda: NSISA(rest=None, steps=-1), "steps is -1"),
        (lambda: SISA(eps=-1.0), "eps is -1.0"),
        (lambda: Identity(-1.0), "q is -1.0"),
        (lambda: HessianDiagonal(probes=0), "probes is 0"),
        (lambda: Adam(1.5), "Adam.beta is 1.5"),
        (lambda: Geometric(0.0, 1), "gamma is 0.0"),
        (lambda: Geometric(0.9, 0), "k0 is 0"),
    ],
)
def test_impossible_settings_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()
