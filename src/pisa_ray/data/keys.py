"""Named random streams, so that every draw in pisa_ray is a function of (seed, purpose, ids) only."""

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from pisa_ray.later import torch


def key(seed: int, purpose: str, *ids: int) -> int:
    """Derive a 64-bit key from a name, the same on every machine.

    Args:
        seed: The run's seed, any integer.
        purpose: What the random numbers are for, e.g. "dropout".
        *ids: What they belong to, e.g. a shard and its report count.

    Returns:
        An integer in [0, 2**64), usable as the seed of a torch generator.
    """
    return _hash(seed, purpose, ids) % 2**64


def generator(seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """Make a counter-based NumPy generator for a name.

    Args:
        seed: The run's seed, any integer.
        purpose: What the random numbers are for, e.g. "partition".
        *ids: What they belong to, e.g. a shard and a local epoch.

    Returns:
        A generator over Philox, keyed with 128 bits; equal names give equal streams, different names independent ones.
    """
    return np.random.Generator(np.random.Philox(key=_hash(seed, purpose, ids)))


def uniform(rows: np.ndarray, seed: int, purpose: str, *ids: int) -> np.ndarray:
    """Return a random number for each row, which does not depend on the other rows in the call.

    Args:
        rows: Row numbers, integers from 0, shape (n,).
        seed: The run's seed, any integer.
        purpose: What the numbers are for, e.g. "shift_labels".
        *ids: What they belong to, e.g. a shard.

    Returns:
        Numbers in [0, 1), float64, shape (n,): SplitMix64, started at the name's key.
    """
    mixed = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key(seed, purpose, *ids))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    numbers: np.ndarray = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers


@contextmanager
def undisturbed_generators() -> Iterator[Callable[[], bytes]]:
    """Restore the global generators of torch, Python and NumPy at the end.

    Yields:
        A function that returns a hash of their states, which shows whether they were used.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        try:
            yield _states
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _states() -> bytes:
    states = repr(random.getstate()), repr(np.random.get_state(legacy=False)), bytes(torch.get_rng_state().numpy())
    return hashlib.sha256(repr(states).encode()).digest()


def _hash(seed: int, purpose: str, ids: tuple[int, ...]) -> int:
    # The repr of a tuple of one string and plain integers is unambiguous, so no two names collide.
    name = repr((int(seed), str(purpose), *(int(i) for i in ids)))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "little")
