"""Small models of the paper's experiments, and models of torchvision for larger images.

A model is a function of the shape of an input, the number of outputs and options of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from pisa_ray.errors import ConfigError
from pisa_ray.later import nn, torch
from pisa_ray.registry import Registry

#: What `model.kind` can be.
MODELS = Registry("model", homes=("pisa_ray.models",))


@MODELS.add
def mlp(input_shape: Sequence[int], outputs: int, hidden: Sequence[int] = (64,)) -> nn.Module:
    """Build fully connected layers with ReLU between them.

    Args:
        input_shape: Shape of one input; it is flattened.
        outputs: Number of outputs.
        hidden: Widths of the hidden layers.
    """
    widths = [prod(input_shape), *hidden, outputs]
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (before, after) in enumerate(pairwise(widths)):
        layers += [nn.ReLU()] * (i > 0) + [nn.Linear(before, after)]
    return nn.Sequential(*layers)


@MODELS.add
def lenet(input_shape: Sequence[int], outputs: int) -> nn.Module:
    """Build the LeNet-like CNN of the paper's heterogeneity study, with 44,426 parameters for MNIST.

    It has 5x5 convolutions with 6 and 16 channels, each with ReLU and 2x2 max-pooling, then layers of 120, 84 and the
    number of outputs.

    Args:
        input_shape: (channels, height, width), at least 16x16.
        outputs: Number of outputs.

    Raises:
        ConfigError: If the inputs are not images, or too small.
    """
    channels, height, width = _image(input_shape, "lenet", 16)
    sizes = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * prod(sizes), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, outputs),
    )


def _torchvision(name: str) -> Callable[..., nn.Module]:
    def build(input_shape: Sequence[int], outputs: int) -> nn.Module:
        import torchvision  # noqa: PLC0415 - seconds to import, and most models do without

        channels, height, width = _image(input_shape, name, 32)
        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=outputs)
        small = min(height, width) < 64
        if name.startswith("resnet") and (small or channels != 3):  # small images keep their size in the first layer
            first = (
                nn.Conv2d(channels, 64, 3, padding=1, bias=False)
                if small
                else nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
            )
            model.conv1 = first
            if small:
                model.maxpool = nn.Identity()
        elif channels != 3:
            raise ConfigError(
                f"the model {name} needs images with 3 channels, but the input has {channels}: use lenet."
            )
        return model

    build.__name__ = name
    build.__doc__ = f"torchvision's {name}, with a first layer that suits small images."
    return build


def _image(input_shape: Sequence[int], kind: str, least: int) -> tuple[int, int, int]:
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        raise ConfigError(
            f"the model {kind} needs images (channels, height, width) of at least {least}x{least}, but an input has "
            f"shape {tuple(input_shape)}: use mlp."
        )
    channels, height, width = input_shape
    return channels, height, width


for _name in ("resnet18", "resnet34", "vgg11", "densenet121"):
    MODELS.add(_torchvision(_name))


def build_model(kind: str, input_shape: Sequence[int], outputs: int, **options: object) -> nn.Module:
    """Build a model by name.

    Args:
        kind: Its name, or "package.module:function".
        input_shape: Shape of one input.
        outputs: Number of outputs: classes, or 1 for regression.
        **options: Further arguments of the model, such as `hidden` of mlp.

    Raises:
        ConfigError: If there is no such model.
    """
    model: nn.Module = MODELS.chosen(kind, "kind")(input_shape, outputs, **options)
    with torch.no_grad():  # a wrong option fails here, not on a worker
        model.eval()(torch.zeros(2, *input_shape))
    return model.train()
