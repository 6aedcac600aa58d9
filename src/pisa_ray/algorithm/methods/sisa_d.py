"""SISA-D: SISA with a diagonal penalty, (10) of docs/algorithm.md, an extension of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

from annotated_types import Gt, Le

from pisa_ray.algorithm.auto import AUTO, Auto, Automatic, number
from pisa_ray.algorithm.driver import LocalStep, Part
from pisa_ray.algorithm.methods.admm import LARGEST, AdmmRule
from pisa_ray.algorithm.second_moment import Adam
from pisa_ray.options import Decay

#: eps, where nothing is said.
EPS = 1e-4


@dataclass(frozen=True, kw_only=True)
class SISAD(AdmmRule):
    """SISA-D: the penalty itself is diagonal, sigma D_i with D_i = sqrt(v_i) + eps (an extension of the paper).

    sigma_i := sigma D_i and rho_i Q_i := rho D_i, so theta = b = sigma / (sigma + rho) everywhere; growth raises sigma
    and rho together, b stays. With several local steps each updates D_i, and v = w + (pi_i - pi_i at the start) /
    (sigma D_i) by the newest; that of the last step is the message's. (With D_i fixed after the first gradient, entries
    that had none then would leap.)

    Attributes:
        beta: Decay of v_i, the bias-corrected second moment of g_i.
        eps: Added to sqrt(v_i): the smallest metric, in units of the gradient. Auto: 1e-4, or where sigma is automatic
            a fiftieth of the typical entry of the first gradients.
    """

    kind: ClassVar[str] = "sisa_d"

    beta: Decay = 0.99
    eps: Annotated[float, Gt(0), Le(LARGEST)] | Automatic = AUTO

    diagonal: ClassVar[bool] = True
    usual_schedule: ClassVar[Mapping[str, Any]] = {"kind": "trapezoid"}

    def first_share(self) -> float:
        """All: no shard has a metric yet."""
        return 1.0

    def take(self, local: LocalStep, part: Part) -> float | None:
        """See driver.Rule."""
        b = number(self.sigma) / (number(self.sigma) + number(self.rho))
        eps = EPS if isinstance(self.eps, Auto) else self.eps
        return local.apply(part, "sisa_d", (local.sigma(part), b, eps), self._v.root, self._v.numbers(local.number))

    @cached_property
    def _v(self) -> Adam:
        return Adam(self.beta)
