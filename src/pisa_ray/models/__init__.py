"""Ready-made models by name, sized by the data: what a configuration's `model.kind` can be."""

from pisa_ray.models.zoo import MODELS, build_model, lenet, mlp

__all__ = ["MODELS", "build_model", "lenet", "mlp"]
