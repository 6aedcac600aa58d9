"""Sigma schedules, pure functions that give the penalty of the next round by a plan and by what rounds have shown."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
