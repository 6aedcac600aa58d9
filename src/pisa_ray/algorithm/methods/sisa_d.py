"""SISA with a diagonal penalty, (10) of docs/algorithm.md, an extension of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

from annotated_types import Gt, Le

from pisa_ray.algorithm.auto import AUTO, Auto, Automatic, number
from pisa_ray.algorithm.methods.admm import LARGEST, AdmmRule
from pisa_ray.algorithm.parts import LocalStep, Part
from pisa_ray.algorithm.second_moment import Adam
from pisa_ray.fields import Decay

#: The default of eps.
EPS = 1e-4


@dataclass(frozen=True, kw_only=True)
class SISAD(AdmmRule):
    """SISA-D, whose penalty is diagonal: sigma D_i with D_i = sqrt(v_i) + eps (an extension of the paper).

    sigma_i := sigma D_i and rho_i Q_i := rho D_i, so theta = b = sigma / (sigma + rho) everywhere; growth raises sigma
    and rho together, and b stays. Each of several local steps updates D_i. The newest D_i gives v = w + (pi_i - pi_i at
    the start) / (sigma D_i), and the message has the last one. (With D_i fixed after the first gradient, entries that
    had no gradient then would leap.)

    Attributes:
        beta: The decay of v_i, the bias-corrected second moment of the gradients.
        eps: A number added to the root of the second moment, so the smallest metric, in units of the gradient. "auto":
            1e-4, or if sigma is automatic, a fiftieth of a typical entry of the first gradients.
    """

    kind: ClassVar[str] = "sisa_d"

    beta: Decay = 0.99
    eps: Annotated[float, Gt(0), Le(LARGEST)] | Automatic = AUTO

    diagonal: ClassVar[bool] = True
    usual_schedule: ClassVar[Mapping[str, Any]] = {"kind": "trapezoid"}

    def first_share(self) -> float:
        """Return 1, as no shard has a metric yet."""
        return 1.0

    def take(self, local: LocalStep, part: Part) -> float | None:
        """See AdmmRule."""
        b = number(self.sigma) / (number(self.sigma) + number(self.rho))
        eps = EPS if isinstance(self.eps, Auto) else self.eps
        return local.apply(part, "sisa_d", (local.sigma(part), b, eps), self._v.root, self._v.numbers(local.number))

    @cached_property
    def _v(self) -> Adam:
        return Adam(self.beta)
