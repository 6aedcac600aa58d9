"""pisa_ray: train PyTorch models with PISA, SISA and NSISA over data shards on Ray workers."""

import lazy_loader

# Importing pisa_ray alone imports nothing else: each name is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
