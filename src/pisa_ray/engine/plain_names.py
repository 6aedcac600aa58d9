"""The names of a model's tensors in the plain model, without its wrappers."""

from __future__ import annotations

from torch import nn

#: The part of a name that torch.compile adds.
COMPILED = "_orig_mod"


def plain_names(module: nn.Module) -> dict[str, str]:
    """Return the names of a model's saved tensors, each with its name without torch.compile and DataParallel."""
    wrappers = set()
    for path, part in module.named_modules():
        if hasattr(part, COMPILED):
            wrappers.add(f"{path}.{COMPILED}".lstrip("."))
        if isinstance(part, nn.DataParallel):
            wrappers.add(f"{path}.module".lstrip("."))

    def plain(name: str) -> str:
        parts = name.split(".")
        return ".".join(part for i, part in enumerate(parts) if ".".join(parts[: i + 1]) not in wrappers)

    return {name: plain(name) for name in module.state_dict()}
