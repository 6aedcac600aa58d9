"""The algorithms, which know torch and neither Ray nor files. Read methods/admm.py first, then message.py."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
