"""Partitions of the training rows into shards: those of the NIID-Bench study, and the user's own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
