"""Training data: the sources of rows, partitions into shards, and the order in which a shard sees its rows.

`open_source` opens data, a partition such as `LabelSkew` cuts them, `BatchStream` orders each shard's mini-batches and
`Preprocess` prepares them for the model. All results are functions of (config, data, seed) only.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
