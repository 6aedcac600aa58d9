"""The device of a worker, and copies between host and device."""

from __future__ import annotations

import os

import numpy as np
import torch

from pisa_ray.algorithm.compiled import processor
from pisa_ray.errors import ConfigError


def choose_device(gpu: bool) -> torch.device:
    """Return the device of a worker: the GPU that was reserved for it, or the CPU.

    Raises:
        ConfigError: If a GPU is asked for and torch sees none.
    """
    if gpu and not torch.cuda.is_available():
        raise ConfigError("a GPU was asked for, but torch sees none: install a CUDA build of torch, or ask for none.")
    if gpu:  # makes matrix products repeatable; it is read when the first one is computed
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda" if gpu else "cpu")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for bfloat16 matrix products, which take half as long or less."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    can = processor().split()
    return any(name in can for name in ("avx512_bf16", "amx_bf16", "bf16"))


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a host tensor to the device; to a GPU through pinned memory, so that other work goes on meanwhile."""
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)


def to_host(x: torch.Tensor) -> np.ndarray:
    """Return a tensor as a numpy array: on the CPU a view of it, from a GPU a copy in pinned memory."""
    x = x.detach()
    if x.device.type != "cpu":
        x = torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x)
    array: np.ndarray = x.numpy()
    return array
