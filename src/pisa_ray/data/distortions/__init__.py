"""Distortions, which make the rows of shards differ: noise, other labels, turned and recoloured images."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
