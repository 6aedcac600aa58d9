"""Decides which functions a run directory, perhaps somebody else's, may name without the user's trust."""

from __future__ import annotations

import inspect
from pathlib import Path

from pisa_ray.errors import ConfigError
from pisa_ray.later import torch
from pisa_ray.named import Named, check_no_standard, is_installed

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
