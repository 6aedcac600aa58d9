"""Which functions a run directory, which need not be one's own, may name without the user's saying so."""

from __future__ import annotations

import inspect
from pathlib import Path

from pisa_ray.errors import ConfigError
from pisa_ray.later import torch
from pisa_ray.named import Named, check_no_standard, is_installed

#: Packages that this library stands on: their functions read files and run commands, and only their modules are models.
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
    """Return whether a function that a run directory names may be run without the user's saying so.

    Args:
        reference: The function.
        key: The key of config.yaml that names it.
        run_dir: The directory.

    Raises:
        ConfigError: If it is not of an installed package, or one of those that this library stands on.
    """
    module = reference.partition(":")[0]
    top = module.partition(".")[0]
    check_no_standard(top, reference, key)
    if is_installed(top) and (top not in _OURS or module == "pisa_ray.models" or _is_model(reference)):
        return
    raise ConfigError(
        f"{key} is {reference!r}, code that {run_dir}/config.yaml names and that is no model of an installed package: "
        "look at both, and use trust=True to run it."
    )


def _is_model(reference: str) -> bool:
    try:
        found = Named(reference, None).find()
    except Exception:  # it will be told where it is used
        return False
    return inspect.isclass(found) and issubclass(found, torch.nn.Module)
