"""A check of items that become known only when they are fetched."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pisa_ray.data.where import Where
from pisa_ray.errors import ConfigError

#: Refuses a batch, given its items' numbers, inputs and targets.
ItemCheck = Callable[[np.ndarray, Tensor, Tensor], None]


def check_items(name: str, checked: bool, rows: np.ndarray, inputs: Tensor, targets: Tensor) -> None:
    """Refuse numbers that float32 cannot hold.

    Args:
        name: What to call the data in error messages.
        checked: Whether to check the inputs, too, and not only the targets.
        rows: The items' numbers, shape (b,).
        inputs: The inputs as stored, shape (b, ...).
        targets: The targets, shape (b, ...).

    Raises:
        ConfigError: If a number is NaN, infinite or too large; the text names the item.
    """
    for what, tensor in (("input", inputs), ("target", targets)):
        if tensor.is_floating_point() and (checked or what == "target"):
            good = torch.isfinite(tensor.to(torch.float32)).reshape(len(rows), -1)
            if not good.all():
                item = int((~good.all(1)).nonzero()[0])
                value = tensor[item].reshape(-1)[~good[item]][0].item()
                raise ConfigError(
                    f"{Where(name, int(rows[item])).cell(0, what)} holds {value}, but every number must be finite: "
                    "fill in or drop that item."
                )
