"""The part of the configuration file that says which rows lie on which shard, and what is done to them there."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pisa_ray.cli.config_distortion import AnyDistortion
from pisa_ray.cli.config_section import OF_CLASS, ClassSection

Shards = Annotated[int, Field(ge=1)]


class PartitionSection(ClassSection):
    """What all partitions share."""

    distort: AnyDistortion | None = None

    def given(self) -> dict[str, Any]:
        """See ClassSection; the recipe alone."""
        return {name: value for name, value in super().given().items() if name != "distort"}

    def build(self) -> Any:
        """As the trainer takes it."""
        import pisa_ray

        recipe = super().build()
        return recipe if self.distort is None else pisa_ray.Distorted(recipe, self.distort.build())


class IIDSection(PartitionSection):
    """`partition: {kind: iid}`."""

    classes: ClassVar = {"iid": "IID"}

    kind: Literal["iid"]
    shards: Shards


class LabelsSection(PartitionSection):
    """`partition: {kind: labels_per_shard}`."""

    classes: ClassVar = {"labels_per_shard": "LabelSkew"}

    kind: Literal["labels_per_shard"]
    shards: Shards
    labels: Annotated[int, Field(ge=1)] = OF_CLASS


class DirichletSection(PartitionSection):
    """`partition: {kind: dirichlet}` and `{kind: quantity}`."""

    classes: ClassVar = {"dirichlet": "Dirichlet", "quantity": "QuantitySkew"}

    kind: Literal["dirichlet", "quantity"]
    shards: Shards
    alpha: Annotated[float, Field(gt=0)] = OF_CLASS
    min_rows: Annotated[int, Field(ge=1)] = OF_CLASS


class ColumnSection(PartitionSection):
    """`partition: {kind: by_column}`."""

    classes: ClassVar = {"by_column": "ByColumn"}

    kind: Literal["by_column"]
    column: str


class FeatureSection(PartitionSection):
    """`partition: {kind: by_feature}`."""

    classes: ClassVar = {"by_feature": "ByFeature"}

    kind: Literal["by_feature"]
    shards: Shards
    column: str | None = OF_CLASS


class NoiseSection(PartitionSection):
    """`partition: {kind: feature_noise}`."""

    classes: ClassVar = {"feature_noise": "FeatureNoise"}

    kind: Literal["feature_noise"]
    shards: Shards
    level: Annotated[float, Field(ge=0)]


class IndicesSection(PartitionSection):
    """`partition: {kind: indices}`."""

    classes: ClassVar = {"indices": "Indices"}

    kind: Literal["indices"]
    shards: Annotated[list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]], Field(min_length=1)]


AnyPartition = (
    IIDSection | LabelsSection | DirichletSection | ColumnSection | FeatureSection | NoiseSection | IndicesSection
)
