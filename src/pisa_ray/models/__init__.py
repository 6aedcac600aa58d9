"""Ready-made models by name, sized by the data; `model.kind` in a configuration names one."""

from pisa_ray.models.zoo import MODELS, build_model, lenet, mlp

__all__ = ["MODELS", "build_model", "lenet", "mlp"]
