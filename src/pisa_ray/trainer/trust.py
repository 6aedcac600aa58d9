"""Decides which functions a run directory, perhaps somebody else's, may name without the user's trust."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pisa_ray.errors import ConfigError
from pisa_ray.later import torch
from pisa_ray.named import Named, check_no_standard, is_installed, is_unnamed

#: Packages that this library needs: their functions read files and run commands, so only their models are allowed.
_OURS = {
    *(
        "PIL",
        "annotated_types",
        "filelock",
        "jinja2",
        "joblib",
        "lazy_loader",
        "markupsafe",
        "matplotlib",
        "numpy",
        "pip",
    ),
    *(
        "pisa_ray",
        "pyarrow",
        "pydantic",
        "ray",
        "safetensors",
        "scipy",
        "setuptools",
        "sklearn",
        "torch",
        "tqdm",
        "yaml",
    ),
}


def texts(recorded: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts of a configuration, alone or in lists, by dotted key."""
    for key, value in recorded.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Mapping):
                yield from texts(one, f"{path}{key}.")
            elif isinstance(one, str):
                yield f"{path}{key}", one


def unnamed(recorded: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return the key and the description of everything that a run could not record by name, such as a lambda."""
    return ((key, text) for key, text in texts(recorded) if is_unnamed(text))


def references(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the functions and classes that a configuration names, by key."""
    for key, text in texts(values):
        last = key.rpartition(".")[2]
        named = last in ("loss", "metrics", "kind") or ".groups." in key
        if last in ("factory", "transform") or (named and ":" in text):
            yield key, text


def check_code(recorded: Mapping[str, Any], run_dir: Path, *, but: Collection[tuple[str, str]] = ()) -> None:
    """Refuse code that a run's configuration names and that needs the user's permission.

    Args:
        recorded: The content of config.yaml, or a part of it.
        run_dir: The run directory.
        but: Keys and references that are not used.

    Raises:
        ConfigError: If there is such code; it names the first.
    """
    for key, reference in references(recorded):
        if (key, reference) not in but:
            check_installed(reference, key, run_dir)


def check_installed(reference: str, key: str, run_dir: Path) -> None:
    """Refuse a function that a run directory names and that may only be run with the user's trust.

    Args:
        reference: The function.
        key: The key of config.yaml that names it.
        run_dir: The directory.

    Raises:
        ConfigError: If it is not of an installed package, or is of one that this library needs.
    """
    module = reference.partition(":")[0]
    top = module.partition(".")[0]
    check_no_standard(top, reference, key)
    if is_installed(top) and (top not in _OURS or module == "pisa_ray.models" or _is_model(reference)):
        return
    raise ConfigError(
        f"{key} is {reference!r}, code that {run_dir}/config.yaml names and that is not a model of an installed "
        "package: look at that code first, and use trust=True to run it."
    )


def _is_model(reference: str) -> bool:
    try:
        found = Named(reference, None).find()
    except Exception:  # the error is raised again when the function is used
        return False
    return inspect.isclass(found) and issubclass(found, torch.nn.Module)
