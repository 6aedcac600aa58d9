"""Training data: where rows come from, how they are cut into shards, and in which order a shard sees them.

`open_source` opens data, a partition such as `LabelSkew` cuts them, `BatchStream` orders each shard's mini-batches and
`Preprocess` prepares them for the model. All of it is a function of (config, data, seed) only.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
