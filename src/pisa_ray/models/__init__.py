"""Ready-made models by name, sized by the data: what a configuration's `model.kind` can be."""

from pisa_ray.models.zoo import KINDS, build_model, lenet, mlp

__all__ = ["KINDS", "build_model", "lenet", "mlp"]
