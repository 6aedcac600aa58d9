"""pisa_ray: train PyTorch models with PISA, SISA and NSISA over data shards on Ray workers."""

import lazy_loader

# Importing pisa_ray alone imports nothing else: a name is looked for when it is first asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
