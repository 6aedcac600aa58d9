"""The part of the configuration file that says which rows lie on which shard."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pisa_ray.cli.config_section import Section
from pisa_ray.data import (
    IID,
    ByColumn,
    Dirichlet,
    FeatureNoise,
    Indices,
    LabelSkew,
    Partition,
    QuantitySkew,
)

Shards = Annotated[int, Field(ge=1)]


class IIDSection(Section):
    """`partition: {kind: iid}`."""

    kind: Literal["iid"]
    shards: Shards

    def build(self) -> Partition:
        """As the trainer takes it."""
        return IID(self.shards)


class LabelsSection(Section):
    """`partition: {kind: labels_per_shard}`."""

    kind: Literal["labels_per_shard"]
    shards: Shards
    labels: Annotated[int, Field(ge=1)] = 1

    def build(self) -> Partition:
        """As the trainer takes it."""
        return LabelSkew(self.shards, self.labels)


class DirichletSection(Section):
    """`partition: {kind: dirichlet}` and `{kind: quantity}`."""

    kind: Literal["dirichlet", "quantity"]
    shards: Shards
    alpha: Annotated[float, Field(gt=0)] = 0.5
    min_rows: Annotated[int, Field(ge=1)] = 10

    def build(self) -> Partition:
        """As the trainer takes it."""
        return (Dirichlet if self.kind == "dirichlet" else QuantitySkew)(self.shards, self.alpha, self.min_rows)


class ColumnSection(Section):
    """`partition: {kind: by_column}`."""

    kind: Literal["by_column"]
    column: str

    def build(self) -> Partition:
        """As the trainer takes it."""
        return ByColumn(self.column)


class NoiseSection(Section):
    """`partition: {kind: feature_noise}`."""

    kind: Literal["feature_noise"]
    shards: Shards
    level: Annotated[float, Field(ge=0)]

    def build(self) -> Partition:
        """As the trainer takes it."""
        return FeatureNoise(self.shards, self.level)


class IndicesSection(Section):
    """`partition: {kind: indices}`."""

    kind: Literal["indices"]
    shards: Annotated[list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]], Field(min_length=1)]

    def build(self) -> Partition:
        """As the trainer takes it."""
        return Indices(tuple(tuple(rows) for rows in self.shards))


AnyPartition = IIDSection | LabelsSection | DirichletSection | ColumnSection | NoiseSection | IndicesSection
