"""Makes processes compute the same bits: fixed threads, keyed randomness, a record of the numeric environment."""

from __future__ import annotations

import platform
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import PIL
import torch

from pisa_ray.algorithm.compiled import cpu_line
from pisa_ray.data import key, undisturbed_generators


def set_numerics(threads: int) -> None:
    """Fix whatever changes last bits: the number of threads, the default type, denormal numbers, kernels."""
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    # A coordinate that lost its gradient decays into denormal numbers and stays there, at a tenth of the speed.
    torch.set_flush_denormal(True)
    if threads > 1 and not _all_flush():
        warnings.warn(
            f"this process has computed with several threads before, so not all of the {threads} count numbers below "
            "1e-38 as 0, and the last bits of a run with such numbers can be others than elsewhere: begin in a fresh "
            "process, or use threads_per_worker=1.",
            stacklevel=2,
        )
    if torch.cuda.is_available():  # choose GPU kernels that always give the same bits, if torch has them
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nobody reads it


def _all_flush() -> bool:
    """Return whether denormal numbers are 0 in every thread, as the setting reaches only this one and later ones."""
    return not bool(torch.full((1 << 17,), 2e-38).mul_(0.3).any())  # 6e-39


def seed_all(seed: int, purpose: str, *ids: int) -> None:
    """Seed every global generator that user code may call, by the purpose of the numbers."""
    seed_globals(key(seed, purpose, *ids))


def seed_globals(number: int) -> None:
    """Seed the global generators of torch, Python and numpy with one number."""
    # torch.manual_seed is not used: if CUDA is built in but unused, each call would queue a stack trace for ever.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(number)
    random.seed(number)
    np.random.seed(number % 2**32)


@contextmanager
def borrowed_process(threads: int) -> Iterator[None]:
    """Run with our numerics and seeds in the user's process, and leave it as it was."""
    cudnn, flushed = torch.backends.cudnn, not torch.tensor(1e-39).mul(0.5).item()
    old = torch.get_num_threads(), torch.get_default_dtype()
    kernels = cudnn.deterministic, cudnn.benchmark, torch.get_deterministic_debug_mode()
    with undisturbed_generators(), torch.enable_grad():
        try:
            set_numerics(threads)
            yield
        finally:
            torch.set_num_threads(old[0])
            torch.set_flush_denormal(flushed)
            torch.set_default_dtype(old[1])
            cudnn.deterministic, cudnn.benchmark = kernels[:2]
            if torch.cuda.is_available():  # elsewhere nothing was set, and the call would import torch's compiler
                torch.use_deterministic_algorithms(kernels[2] > 0, warn_only=kernels[2] == 1)


def borrowed_tensor(array: np.ndarray) -> torch.Tensor:
    """Return a tensor on memory that others may share, which must only be read."""
    return torch.from_numpy(array)


with warnings.catch_warnings():  # torch warns once per process of arrays that are not writable; ours are only read
    warnings.simplefilter("ignore")
    _fixed = np.zeros(1)
    _fixed.flags.writeable = False
    borrowed_tensor(_fixed)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the differences of two records of `environment`, by key: (before, now)."""
    keys = sorted({*before, *now})
    return {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}


def environment(device: torch.device) -> dict[str, str | int]:
    """Return all that can change the last bits of a gradient, as it is recorded in checkpoints."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "machine": platform.machine(),
        # Matrix libraries choose kernels by its maker, too.
        "processor": cpu_line("vendor_id").partition(":")[2].strip() or platform.processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }
