"""A look at items that are known only when they are fetched."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pisa_ray.data.where import Where
from pisa_ray.errors import ConfigError


@dataclass(frozen=True)
class ItemCheck:
    """Refuses what is no number that float32 can hold.

    Attributes:
        name: What the data are called.
        inputs: Whether it looks at the inputs, too, and not only at the targets.
    """

    name: str
    inputs: bool

    def __call__(self, rows: np.ndarray, inputs: Tensor, targets: Tensor) -> None:
        """Looks at a batch.

        Args:
            rows: The items' numbers, shape (b,).
            inputs: As stored, shape (b, ...).
            targets: Shape (b, ...).

        Raises:
            ConfigError: If a number is NaN, infinite or too large; names the item.
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
