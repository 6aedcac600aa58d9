"""NSISA: orthogonalised momentum in place of the gradients of matrices, and a rule for all other parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Le

from pisa_ray.algorithm.auto import Auto, number
from pisa_ray.algorithm.layout import Layout, Slot
from pisa_ray.algorithm.methods.admm import SISA, AdmmRule, Member, prefixed, shared_settings
from pisa_ray.algorithm.methods.sisa_d import SISAD
from pisa_ray.algorithm.newton_schulz import orthogonalise, shape_scale
from pisa_ray.algorithm.parts import LocalStep, Part
from pisa_ray.algorithm.rules import momentum
from pisa_ray.algorithm.second_moment import Instantaneous, SecondMoment
from pisa_ray.errors import ConfigError
from pisa_ray.fields import Decay
from pisa_ray.later import torch

#: The most entries that go through the Newton-Schulz steps at once; that takes memory for about six times as many.
BATCH = 1 << 22

#: The precision in which matrices are multiplied.
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class NSISA(SISA):
    """NSISA, which is SISA on orthogonalised momentum for the matrices of a model, and `rest` for all other parameters.

    A matrix moves by about 2 o / sigma with o of unit scale, for any loss. Vectors, embeddings and the last linear
    layer have no such scale. In the paper they follow SISA with the same numbers (`rest=None`, where the last layer is
    a matrix, too), which hardly moves the embeddings of a real vocabulary.

    Attributes:
        rest: The rule of all parameters that are not matrices of blocks (embeddings, the last linear layer, vectors),
            with its own numbers; the schedule moves both sigmas together. None, in a file "paper": SISA with the same
            sigma and rho, where the last layer is a matrix, too.
        mu: The momentum.
        nesterov: Whether to orthogonalise g + mu b (as in the authors' code) instead of b.
        steps: The number of Newton-Schulz steps.
        precision: The precision of their matrix products, on which the result depends. "auto": "bfloat16" if all
            workers of the first round have instructions for it; the choice is recorded, and a resume anywhere keeps it.
            Outside of a run it is "float32".
        matrix_moment: The second moment of the matrices; the default, |d| itself, is that of the authors' code.
        perturbation: eps_z: an entry of d that is exactly 0 becomes eps_z^k in local step k, since the theory wants d
            != 0.
    """

    kind: ClassVar[str] = "nsisa"

    rest: AdmmRule | None = field(default_factory=SISAD)
    mu: Decay = 0.95
    nesterov: bool = True
    steps: Annotated[int, Ge(0), Le(1000)] = 5
    precision: Precision = "auto"
    matrix_moment: SecondMoment = field(default_factory=Instantaneous)
    perturbation: Decay = 1e-15

    momenta: ClassVar[bool] = True
    usual_schedule: ClassVar[Mapping[str, Any]] = {"kind": "trapezoid", "warmup": 0.1, "cooldown": 0.4}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rest is not None:
            if isinstance(self.rest, NSISA):
                raise ConfigError(
                    "NSISA.rest is NSISA, but it is for what is no matrix: give SISAD(), SISA() or PISA()."
                )
            shared_settings(self.rest, "NSISA.rest")

    @classmethod
    def spelled(cls, values: dict[str, Any], path: str) -> dict[str, Any]:
        """See Options; `rest: paper` stands for None."""
        values = super().spelled(values, path)
        rest = values.get("rest")
        if isinstance(rest, Mapping):
            return values | {"rest": {"kind": SISAD.kind, **rest}}
        return values | {"rest": None} if rest == "paper" else values

    @property
    def moments(self) -> bool:
        """Whether the second moment of the matrices remembers anything."""
        return self.matrix_moment.remembers

    @property
    def vectors(self) -> int:
        """The number of vectors of the rest, which is the larger."""
        return 1 if self.rest is None else self.rest.vectors

    @property
    def is_set(self) -> bool:
        """Whether the rule's own numbers and its precision are set."""
        return super().is_set and self.precision != "auto"

    def rules(self) -> Mapping[str, AdmmRule]:
        """Return the rule itself, which moves the matrices, and the rule of the rest."""
        return {"": self} if self.rest is None else {"": self, **prefixed("rest.", self.rest.rules())}

    def with_numbers(self, found: Mapping[str, Any]) -> Self:
        """See Admm."""
        now = super().with_numbers({k: v for k, v in found.items() if not k.startswith("rest.")})
        its = {k.removeprefix("rest."): v for k, v in found.items() if k.startswith("rest.")}
        if not its:
            return now
        if self.rest is None:
            raise KeyError(min(its))
        return replace(now, rest=self.rest.with_numbers(its))

    def members(self, layout: Layout) -> Sequence[Member]:
        """Return the rules with the matrices and the other parameters."""
        rest, path, ratio = self.rest, "rest.", 1.0
        if rest is None:
            its = {name: getattr(self, name) for name in ("sigma", "rho", "lam", "second_moment", "eps")}
            rest, path = SISA(**its), ""
        elif not isinstance(self.sigma, Auto) and not isinstance(rest.sigma, Auto):
            ratio = rest.sigma / self.sigma
        matrices = [slot for slot in layout.slots if self._orthogonalises(slot)]
        others = [slot for slot in layout.slots if not self._orthogonalises(slot)]
        return [("", self, 1.0, matrices), (path, rest, ratio, others)]

    def _orthogonalises(self, slot: Slot) -> bool:
        return slot.matrix and (self.rest is None or not (slot.head or slot.flat))

    def take(self, local: LocalStep, part: Part) -> float | None:
        """See AdmmRule."""
        self._orthogonalise(local.shard.momentum, part, local.g)
        numbers = local.sigma(part), number(self.rho), self.eps
        root, its = self.matrix_moment.root, self.matrix_moment.numbers(local.number)
        if not self.perturbation:
            return local.apply(part, "sisa", numbers, root, its)
        return local.apply(part, "nsisa", (*numbers, self.perturbation**local.number), root, its)

    def _orthogonalise(self, b: torch.Tensor, part: Part, gradient: torch.Tensor) -> None:
        """Update the momentum, and overwrite the part's gradient by o; matrices of equal shapes go in batches."""
        for piece in part.pieces:
            g = gradient[piece.entries]
            g.copy_(momentum(b[piece.momentum], g, self.mu, nesterov=self.nesterov))
        by_shape: dict[tuple[int, int], list[slice]] = {}
        for slot in part.slots:
            by_shape.setdefault(slot.matrix_shape, []).append(slot.part)
        dtype = torch.bfloat16 if self.precision == "bfloat16" else gradient.dtype
        for shape, parts in by_shape.items():
            batch = max(1, BATCH // (shape[0] * shape[1]))  # set by the layout, so that bits do not depend on memory
            for some in (parts[k : k + batch] for k in range(0, len(parts), batch)):
                o = orthogonalise(torch.stack([gradient[at].view(shape) for at in some]).to(dtype), self.steps)
                for at, matrix in zip(some, o.to(gradient.dtype), strict=True):
                    torch.mul(matrix.reshape(-1), shape_scale(*shape), out=gradient[at])
