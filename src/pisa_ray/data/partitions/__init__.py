"""How the training rows are cut into shards: the recipes of the NIID-Bench study, and the user's own cuts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
