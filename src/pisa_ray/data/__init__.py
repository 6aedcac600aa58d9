"""Training data: where rows come from, how they are cut into shards, and in which order a shard sees them.

`open_source` opens data, a partition such as `LabelSkew` cuts them, `BatchStream` orders each shard's mini-batches and
`Preprocess` prepares them for the model. All of it is a function of (config, data, seed) only.
"""

from .base import Source
from .distribution import distribution_table, label_distribution, plot_distribution
from .keys import generator, key
from .partitions import (
    IID,
    ByColumn,
    Dirichlet,
    FeatureNoise,
    Indices,
    LabelSkew,
    Partition,
    QuantitySkew,
    hold_out,
)
from .preprocess import Preprocess, default_preprocess
from .rows import Rows
from .sources import open_source
from .streams import BatchStream

__all__ = [
    "IID",
    "BatchStream",
    "ByColumn",
    "Dirichlet",
    "FeatureNoise",
    "Indices",
    "LabelSkew",
    "Partition",
    "Preprocess",
    "QuantitySkew",
    "Rows",
    "Source",
    "default_preprocess",
    "distribution_table",
    "generator",
    "hold_out",
    "key",
    "label_distribution",
    "open_source",
    "plot_distribution",
]
