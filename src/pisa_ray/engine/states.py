"""Shards' states as values, which are sent to another worker, kept in a snapshot, or written to a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pisa_ray.algorithm import ShardState
from pisa_ray.engine.device import to_host
from pisa_ray.engine.files import Folder
from pisa_ray.engine.numerics import borrowed_tensor
from pisa_ray.errors import ConfigError


@dataclass(frozen=True)
class StateValue:
    """The state of one shard as arrays and numbers, by the names of its fields."""

    tensors: Mapping[str, np.ndarray]
    scalars: Mapping[str, int | float]

    @classmethod
    def of(cls, state: ShardState) -> StateValue:
        """Return the values of a state; on the CPU the arrays are views of it."""
        return cls({name: to_host(t) for name, t in state.tensors().items()}, state.scalars())

    def load_into(self, state: ShardState) -> None:
        """Copy the values into a state.

        Raises:
            ValueError: If the values are those of another method or model.
        """
        state.load({name: borrowed_tensor(array) for name, array in self.tensors.items()}, self.scalars)


#: Shards' states by shard id.
States = dict[int, StateValue]


@dataclass(frozen=True)
class StoredStates:
    """Shards' states in the files of a checkpoint.

    Attributes:
        folder: The folder of the checkpoint.
        entries: The entries of its files in the manifest.
    """

    folder: Folder
    entries: Sequence[Mapping[str, Any]]

    def load_into(self, states: Mapping[int, ShardState]) -> None:
        """Load the states of some shards, whichever files they are in.

        Raises:
            ConfigError: If the states are those of another method or model.
        """
        for entry in self.entries:
            mine = {str(i): state for i, state in states.items() if str(i) in entry["shards"]}
            if not mine:
                continue

            def is_mine(name: str, mine: Mapping[str, ShardState] = mine) -> bool:
                return name.partition("/")[0] in mine

            expected = {f"{i}/{name}": t for i, state in mine.items() for name, t in state.tensors().items()}
            saved = self.folder.read_tensors(entry, is_mine, expected)
            for name, tensor in saved.items():
                if tensor.is_floating_point() and tensor.isnan().any():
                    where = f"{self.folder}/{entry['file']} has a NaN in {name}"
                    raise ConfigError(f"{where}: remove its folder to resume from an older one.")
            for i, state in mine.items():
                try:
                    state.load({name: saved[f"{i}/{name}"] for name in state.tensors()}, entry["shards"][i])
                except (TypeError, ValueError) as error:
                    raise ConfigError(
                        f"{self.folder} does not fit shard {i} ({error}): resume with the same method."
                    ) from error


def write_states(folder: Folder, name: str, states: States) -> dict[str, object]:
    """Write states to one file of a checkpoint; return its entry in the manifest."""
    tensors = {f"{i}/{field}": array for i, state in states.items() for field, array in state.tensors.items()}
    return {**folder.write_tensors(name, tensors), "shards": {str(i): dict(s.scalars) for i, s in states.items()}}
