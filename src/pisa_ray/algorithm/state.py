"""A shard's state, a value whose fields define how it is saved and moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from pisa_ray.later import torch


@dataclass(kw_only=True)
class ShardState:
    """The state of shard i between two reports; methods add their vectors as fields.

    Attributes:
        version: r_i, the round of its last report, which was made at that round's w; 0: there is none yet.
        reports: k_i, how often the shard has reported; times the local steps of a report, it replaces ell in every
            bias correction.
        said: Its last message, alpha_i times [ N_i | M_i | buffers | 1 ], if that stands while the shard is absent;
            else [0].
    """

    version: int = 0
    reports: int = 0
    said: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the vectors by field name (not copied)."""
        return {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), torch.Tensor)}

    def scalars(self) -> dict[str, int | float]:
        """Return the numbers by field name."""
        return {f.name: v for f in fields(self) if not isinstance(v := getattr(self, f.name), torch.Tensor)}

    def load(self, tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, int | float]) -> None:
        """Take over saved values, in place; the fields, shapes and types must be this state's own.

        Raises:
            ValueError: If a field is missing, unknown, or of another shape or type.
        """
        own = self.tensors()
        if set(own) != set(tensors) or set(self.scalars()) != set(scalars):
            raise ValueError(
                f"the state has fields {sorted({*own, *self.scalars()})}, not {sorted({*tensors, *scalars})}"
            )
        for name, value in tensors.items():
            if value.shape != own[name].shape or value.dtype != own[name].dtype:
                raise ValueError(
                    f"{name} is {tuple(own[name].shape)} {own[name].dtype}, not {tuple(value.shape)} {value.dtype}"
                )
        for name, value in tensors.items():
            own[name].copy_(value)
        for name, number in scalars.items():
            setattr(self, name, type(getattr(self, name))(number))
