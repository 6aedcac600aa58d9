"""The algorithms: torch only, no Ray, no files. Read admm.py first, then message.py; the baselines are beside them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
