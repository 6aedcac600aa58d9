"""Shards' states as values: to be sent to another worker, kept against a loss, or written to a checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file

from pisa_ray.algorithm import ShardState
from pisa_ray.engine.device import to_host
from pisa_ray.engine.numerics import borrowed_tensor


@dataclass(frozen=True)
class StateValue:
    """One shard's local ADMM state, as arrays and numbers by the names of its fields."""

    tensors: Mapping[str, np.ndarray]
    scalars: Mapping[str, int | float]

    @classmethod
    def of(cls, state: ShardState) -> StateValue:
        """The state's values; on the CPU the arrays are views of it."""
        return cls({name: to_host(t) for name, t in state.tensors().items()}, state.scalars())

    def load_into(self, state: ShardState) -> None:
        """Copy the values into a state.

        Raises:
            ValueError: They are another method's, or another model's.
        """
        state.load({name: borrowed_tensor(array) for name, array in self.tensors.items()}, self.scalars)


#: Shards' states by shard id.
States = dict[int, StateValue]


@dataclass(frozen=True)
class StoredStates:
    """Shards' states in the files of a checkpoint.

    Attributes:
        folder: The checkpoint's.
        entries: Its files, as the manifest lists them.
    """

    folder: str
    entries: Sequence[Mapping[str, Any]]

    def read(self, shards: Iterable[int]) -> States:
        """The states of some shards, whichever files they are in."""
        wanted, found = set(shards), States()
        for entry in self.entries:
            scalars = json.loads(json.dumps(entry["shards"]))
            mine = [i for i in wanted if str(i) in scalars]
            if not mine:
                continue
            with safe_open(Path(self.folder) / str(entry["file"]), framework="np") as file:
                names = set(file.keys())
                for i in mine:
                    fields = [n.partition("/")[2] for n in names if n.startswith(f"{i}/")]
                    found[i] = StateValue({n: file.get_tensor(f"{i}/{n}") for n in fields}, scalars[str(i)])
        return found


def write_states(folder: str, name: str, states: States) -> dict[str, object]:
    """Write states to one file of a checkpoint; returns its entry in the manifest."""
    path = Path(folder) / name
    save_file({f"{i}/{n}": borrowed_tensor(a) for i, s in states.items() for n, a in s.tensors.items()}, path)
    return {"file": name, **fingerprint(path), "shards": {str(i): dict(s.scalars) for i, s in states.items()}}


def fingerprint(path: Path) -> dict[str, object]:
    """Size in bytes and SHA-256 of a file; flushed to disk first."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
