"""The manifest of a checkpoint: the type and the range of every field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

FORMAT = 8

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Change(BaseModel, strict=True):
    round: Count
    shard: Count
    rows: Count
    name: str | None = None


class Removed(_Change):
    """The record of a shard that has left."""

    kind: Literal["shard_removed"]


class Added(_Change):
    """The record of data that have joined as a shard."""

    kind: Literal["shard_added"]
    train: str
    fingerprint: str


_CHANGE: TypeAdapter[Removed | Added] = TypeAdapter(Annotated[Removed | Added, Field(discriminator="kind")])


@dataclass
class Progress:
    """The progress of a run: what the driver needs to resume it, saved in each checkpoint.

    Attributes:
        round: Rounds done.
        sigma: Penalty after the last round, from which the next one's grows (sigma^0 before the first).
        memory: The memory of the sigma schedule.
        start: Numbers of the method that the automatic start has set.
        first_loss: The mean training loss of round 1.
        losses: Statistics of later losses; see pisa_ray.trainer.misled.
        sample_gradients: Sample gradients computed so far, over all shards.
        bytes_sent: Bytes of messages that workers sent to the consensus so far.
        seconds: Wall time of training so far.
        gradient_seconds: Time spent on gradients so far, summed over workers.
        best: Best value so far of every metric.
        exact: Whether the whole run was computed in one numeric environment.
        changes: Records of shards that have joined or left, in order; see pisa_ray.trainer.changes.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    round: Count = 0
    sigma: Positive = 0.0
    memory: dict[str, Finite] = field(default_factory=dict)
    start: dict[str, Positive | Literal["float32", "bfloat16"]] = field(default_factory=dict)
    first_loss: float = 0.0
    losses: dict[str, Finite] = field(default_factory=dict)
    sample_gradients: Count = 0
    bytes_sent: Count = 0
    seconds: Annotated[Finite, Field(ge=0)] = 0.0
    gradient_seconds: Annotated[Finite, Field(ge=0)] = 0.0
    best: dict[str, float] = field(default_factory=dict)
    exact: bool = True
    changes: list[dict[str, Any]] = field(default_factory=list)


class Entry(BaseModel, strict=True, extra="forbid"):
    """A file of the checkpoint."""

    file: str
    bytes: Count
    sha256: str


class Scalars(BaseModel, strict=True, extra="allow"):
    """The numbers of a shard's state; methods may add others."""

    __pydantic_extra__: dict[str, int | float]

    version: Count
    reports: Count


class StatesEntry(Entry):
    """A file with the states of shards."""

    shards: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Scalars]


class Files(BaseModel, strict=True, extra="forbid"):
    """All files of a checkpoint."""

    consensus: Entry
    shards: list[StatesEntry]


class Identity(BaseModel, strict=True):
    """What a run must have in common with the saved one to resume it; a missing value counts as different."""

    data_sha256: str | None = None
    parameters: list[tuple[str, list[int]]] | None = None
    shards: Count | None = None
    settings: dict[str, Any] | None = None


class Manifest(BaseModel, strict=True, extra="forbid"):
    """A whole manifest."""

    format: Literal[8]
    progress: Progress
    identity: Identity
    environment: dict[str, str | int]
    metrics: dict[str, Finite]
    files: Files
    sha256: str

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        done = self.progress.round
        for change in self.progress.changes:
            if not is_change(change) or change["round"] > done:
                raise ValueError("changes tell of no shard that joined or left before this round")
        for entry in self.files.shards:
            if any(max(state.version, state.reports) > done for state in entry.shards.values()):
                raise ValueError("a shard has reported more often than there were rounds")
        return self


def is_change(value: object) -> bool:
    """Return whether a value is the record of a shard that joined or left."""
    try:
        _CHANGE.validate_python(value)
    except ValidationError:
        return False
    return True


def fault(raw: bytes) -> str | None:
    """Return the first fault of a manifest in a few words, or None if it has none."""
    try:
        Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"])
        return f"{place}: {first['msg']}" if place else first["msg"]
    return None
