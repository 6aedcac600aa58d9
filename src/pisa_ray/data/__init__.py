"""Training data: where rows come from, how they are cut into shards, and in which order a shard sees them.

`open_source` opens data, a partition such as `LabelSkew` cuts them, `BatchStream` orders each shard's mini-batches and
`Preprocess` prepares them for the model. All of it is a function of (config, data, seed) only.
"""

from pisa_ray.data.alike import check_alike
from pisa_ray.data.base import Source
from pisa_ray.data.by_feature import ByFeature
from pisa_ray.data.distortions import Distortion, Noise, Origin, Recolour, Rotate, ShiftLabels
from pisa_ray.data.distribution import distribution_table, label_distribution, plot_distribution
from pisa_ray.data.kept import KeptSource
from pisa_ray.data.keys import generator, key, undisturbed_generators
from pisa_ray.data.partitions import (
    IID,
    ByColumn,
    Dirichlet,
    Distorted,
    FeatureNoise,
    Indices,
    LabelSkew,
    Partition,
    QuantitySkew,
    hold_out,
)
from pisa_ray.data.preprocess import DTYPES, Preprocess, checked_dtype, default_preprocess
from pisa_ray.data.rows import Rows
from pisa_ray.data.sources import open_source
from pisa_ray.data.streams import BatchStream
from pisa_ray.data.where import Where

__all__ = [
    "DTYPES",
    "IID",
    "BatchStream",
    "ByColumn",
    "ByFeature",
    "Dirichlet",
    "Distorted",
    "Distortion",
    "FeatureNoise",
    "Indices",
    "KeptSource",
    "LabelSkew",
    "Noise",
    "Origin",
    "Partition",
    "Preprocess",
    "QuantitySkew",
    "Recolour",
    "Rotate",
    "Rows",
    "ShiftLabels",
    "Source",
    "Where",
    "check_alike",
    "checked_dtype",
    "default_preprocess",
    "distribution_table",
    "generator",
    "hold_out",
    "key",
    "label_distribution",
    "open_source",
    "plot_distribution",
    "undisturbed_generators",
]
