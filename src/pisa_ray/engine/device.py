"""Copies between host and device: the whole of what differs on a GPU."""

from __future__ import annotations

import numpy as np
import torch

from pisa_ray.errors import PisaError


def choose_device(gpu: bool) -> torch.device:
    """The device of a worker: the GPU that was reserved for it, or the CPU.

    Raises:
        PisaError: A GPU is asked for and torch sees none.
    """
    if gpu and not torch.cuda.is_available():
        raise PisaError("a GPU was asked for, but torch sees none: install a CUDA build of torch, or use gpus 0.")
    return torch.device("cuda" if gpu else "cpu")


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A host tensor on the device; on a GPU by way of pinned memory, so that the copy overlaps with what is running."""
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)


def to_host(x: torch.Tensor) -> np.ndarray:
    """A tensor as a numpy array; on the CPU a view of it."""
    array: np.ndarray = x.detach().cpu().numpy()
    return array
