"""torch, which is imported when it is first used, so that bad settings are refused without it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch  # noqa: PLC0414  (that it is re-exported)
    from torch import nn as nn  # noqa: PLC0414
else:

    class _Later:
        """A stand-in for a module, which is imported when the first of its names is used."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            value = getattr(importlib.import_module(self._name), name)
            setattr(self, name, value)
            return value

    torch, nn = _Later("torch"), _Later("torch.nn")
