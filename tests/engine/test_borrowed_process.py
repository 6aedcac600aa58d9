"""A process that is not ours is left as it was found, however a run in it ends."""

from __future__ import annotations

import random
from contextlib import suppress

import numpy as np
import pytest
import torch

from pisa_ray.engine.numerics import borrowed_process, seed_all


def surroundings():
    """All that a run changes of its process."""
    cudnn = torch.backends.cudnn
    return {
        "threads": torch.get_num_threads(),
        "torch": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "denormal": float(torch.tensor(1e-39) * 0.5),
        "kernels": (cudnn.deterministic, cudnn.benchmark, torch.are_deterministic_algorithms_enabled()),
    }


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("ends", ["well", "with an error", "with an interruption"])
def test_all_is_as_it_was(ends, flushed):
    class Interruption(BaseException):
        pass

    errors = {"with an error": ValueError, "with an interruption": Interruption}
    torch.set_flush_denormal(flushed)
    try:
        before = surroundings()
        with suppress(*errors.values()), borrowed_process(threads=before["threads"] + 1):
            assert torch.get_num_threads() == before["threads"] + 1
            seed_all(7, "forward", 1)
            torch.rand(3), random.random(), np.random.rand()
            if ends in errors:
                raise errors[ends]
        assert surroundings() == before
    finally:
        torch.set_flush_denormal(False)


def test_what_a_number_is_for_seeds_all_generators():
    def drawn():
        return torch.rand(1).item(), random.random(), np.random.rand()

    with borrowed_process(threads=1):
        seed_all(7, "forward", 1, 2)
        first = drawn()
        assert all(a != b for a, b in zip(first, drawn(), strict=True))
        seed_all(7, "forward", 1, 2)
        assert drawn() == first
        for other in ((8, "forward", 1, 2), (7, "augment", 1, 2), (7, "forward", 2, 2), (7, "forward", 1, 3)):
            seed_all(*other)
            assert all(a != b for a, b in zip(first, drawn(), strict=True)), other
