"""A check of items that become known only when they are fetched."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pisa_ray.data.where import Where
from pisa_ray.errors import ConfigError


@dataclass(frozen=True)
class ItemCheck:
    """A check that refuses numbers that float32 cannot hold.

    Attributes:
        name: What to call the data in error messages.
        inputs: Whether to check the inputs, too, and not only the targets.
    """

    name: str
    inputs: bool

    def __call__(self, rows: np.ndarray, inputs: Tensor, targets: Tensor) -> None:
        """Check a batch.

        Args:
            rows: The items' numbers, shape (b,).
            inputs: The inputs as stored, shape (b, ...).
            targets: The targets, shape (b, ...).

        Raises:
            ConfigError: If a number is NaN, infinite or too large; the text names the item.
        """
        for what, tensor in (("input", inputs), ("target", targets)):
            if tensor.is_floating_point() and (self.inputs or what == "target"):
                good = torch.isfinite(tensor.to(torch.float32)).reshape(len(rows), -1)
                if not good.all():
                    item = int((~good.all(1)).nonzero()[0])
                    value = tensor[item].reshape(-1)[~good[item]][0].item()
                    raise ConfigError(
                        f"{Where(self.name, int(rows[item])).cell(0, what)} holds {value}, but every number must be "
                        "finite: fill in or drop that item."
                    )
