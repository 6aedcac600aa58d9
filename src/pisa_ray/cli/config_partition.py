"""The part of the configuration file that says which rows lie on which shard, and what is done to them there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

from pydantic import Field

from pisa_ray.cli.config_distortion import AnyDistortion
from pisa_ray.cli.config_section import Section
from pisa_ray.data import (
    IID,
    ByColumn,
    ByFeature,
    Dirichlet,
    Distorted,
    FeatureNoise,
    Indices,
    LabelSkew,
    Partition,
    QuantitySkew,
)

Shards = Annotated[int, Field(ge=1)]


class PartitionSection(Section, ABC):
    """What all partitions share."""

    distort: AnyDistortion | None = None

    @abstractmethod
    def cut(self) -> Partition:
        """The recipe alone."""

    def build(self) -> Partition:
        """As the trainer takes it."""
        return self.cut() if self.distort is None else Distorted(self.cut(), self.distort.build())


class IIDSection(PartitionSection):
    """`partition: {kind: iid}`."""

    kind: Literal["iid"]
    shards: Shards

    def cut(self) -> Partition:
        """The recipe alone."""
        return IID(self.shards)


class LabelsSection(PartitionSection):
    """`partition: {kind: labels_per_shard}`."""

    kind: Literal["labels_per_shard"]
    shards: Shards
    labels: Annotated[int, Field(ge=1)] = 1

    def cut(self) -> Partition:
        """The recipe alone."""
        return LabelSkew(self.shards, self.labels)


class DirichletSection(PartitionSection):
    """`partition: {kind: dirichlet}` and `{kind: quantity}`."""

    kind: Literal["dirichlet", "quantity"]
    shards: Shards
    alpha: Annotated[float, Field(gt=0)] = 0.5
    min_rows: Annotated[int, Field(ge=1)] = 10

    def cut(self) -> Partition:
        """The recipe alone."""
        return (Dirichlet if self.kind == "dirichlet" else QuantitySkew)(self.shards, self.alpha, self.min_rows)


class ColumnSection(PartitionSection):
    """`partition: {kind: by_column}`."""

    kind: Literal["by_column"]
    column: str

    def cut(self) -> Partition:
        """The recipe alone."""
        return ByColumn(self.column)


class FeatureSection(PartitionSection):
    """`partition: {kind: by_feature}`."""

    kind: Literal["by_feature"]
    shards: Shards
    column: str | None = None

    def cut(self) -> Partition:
        """The recipe alone."""
        return ByFeature(self.shards, self.column)


class NoiseSection(PartitionSection):
    """`partition: {kind: feature_noise}`."""

    kind: Literal["feature_noise"]
    shards: Shards
    level: Annotated[float, Field(ge=0)]

    def cut(self) -> Partition:
        """The recipe alone."""
        return FeatureNoise(self.shards, self.level)


class IndicesSection(PartitionSection):
    """`partition: {kind: indices}`."""

    kind: Literal["indices"]
    shards: Annotated[list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]], Field(min_length=1)]

    def cut(self) -> Partition:
        """The recipe alone."""
        return Indices(tuple(tuple(rows) for rows in self.shards))


AnyPartition = (
    IIDSection | LabelsSection | DirichletSection | ColumnSection | FeatureSection | NoiseSection | IndicesSection
)
