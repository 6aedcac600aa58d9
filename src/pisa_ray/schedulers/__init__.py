"""Sigma schedules: the penalty of the next round, a pure function of what was planned and what has been seen."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
