"""The trained model of a run, in evaluation mode, with the preparation of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pisa_ray import checks
from pisa_ray.algorithm.method import Method
from pisa_ray.data import DTYPES, Preprocess
from pisa_ray.engine.flat_model import FlatModel, load_weights
from pisa_ray.errors import ConfigError, PisaError
from pisa_ray.named import imported, is_unnamed
from pisa_ray.trainer import checkpoint
from pisa_ray.trainer.model import ModelSection
from pisa_ray.trainer.model_factory import model_factory
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.trust import check_code, check_installed


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        model: The plain module, in evaluation mode, on the CPU.
        preprocess: Makes the model's inputs of stored ones, [b, ...], as in training: `preprocess(x, training=False)`.
        round: The round of the weights.
    """

    model: nn.Module
    preprocess: Preprocess
    round: int

    def __call__(self, inputs: Any) -> Any:
        """Return the model's outputs for inputs as they are stored, [b, ...], an array or a tensor."""
        with torch.no_grad():
            return self.model(self.preprocess(torch.as_tensor(inputs), training=False))


def load(
    path: Path | str,
    *,
    best: bool = False,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    transform: Callable[[torch.Tensor, bool], torch.Tensor] | None = None,
    trust: bool = False,
) -> Trained:
    """Load the trained model of a run.

    Args:
        path: The run directory.
        best: Whether to take the weights of the best checkpoint, by the metric that checkpoints are kept by, and not
            those of the last round.
        model: The model that the run was given; None: the one that config.yaml names.
        transform: The run's data.transform; None: the one that config.yaml names, if any.
        trust: Whether to run code that config.yaml names and that is not of an installed package.

    Returns:
        The model, and the preparation of its inputs.

    Raises:
        ConfigError: If there is no such run, it has no weights yet, or something that it names cannot be found, has no
            name, or needs trust.

    Example:
        >>> import pisa_ray, tempfile
        >>> from pathlib import Path
        >>> result = pisa_ray.PisaTrainer(
        ...     model=lambda: pisa_ray.models.mlp((64,), 10), data=pisa_ray.Data(train="digits"), rounds=2,
        ...     partition=pisa_ray.IID(shards=2), scaling_config=0, progress=False,
        ...     run_config=Path(tempfile.mkdtemp()) / "run").fit()
        >>> trained = pisa_ray.load(result.path, model=lambda: pisa_ray.models.mlp((64,), 10))
        >>> trained(torch.zeros(3, 64)).shape
        torch.Size([3, 10])
    """
    directory = RunDirectory(Path(checks.path("path", path)))
    recorded, inputs = directory.config(), _inputs(directory)
    make = _factory(recorded, inputs, directory.path, trust=trust) if model is None else model_factory(model)
    preprocess = _preprocess(recorded, inputs, transform, directory.path, trust=trust)
    method: Method | None = None
    if best:
        algorithm = {"algorithm": recorded["algorithm"]}
        if not trust:
            check_code(algorithm, directory.path)
        method = Method.read(recorded["algorithm"], "algorithm")
    return loaded(directory, make, preprocess, method)


def loaded(
    directory: RunDirectory, make: Callable[[], nn.Module], preprocess: Preprocess, best: Method | None = None
) -> Trained:
    """Load a run's weights into the model that it began with; see `load`.

    Args:
        directory: The run directory.
        make: Makes the model.
        preprocess: The preparation of its inputs.
        best: The run's method, for the best checkpoint's weights; None: those of the last round.

    Raises:
        ConfigError: If there are no such weights, or they do not fit the model.
    """
    module = make()
    if best is not None:
        round_ = _load_best(directory, module, make(), best)
    else:
        if not directory.model.exists():
            raise ConfigError(f"{directory.path} has no model.safetensors yet: let the run end, or resume it.")
        load_weights(module, directory.model)
        round_ = int(directory.records.last_row().get("round", 0))
    return Trained(module.eval(), preprocess, round_)


def _load_best(directory: RunDirectory, module: nn.Module, other: nn.Module, method: Method) -> int:
    """Load the weights of the best checkpoint by way of another module, whose weights are views of one vector."""
    kept = directory.config().get("checkpoint") or {}
    metric, order = kept.get("best_by"), kept.get("order", "max")
    if metric is None:
        raise ConfigError(
            "best is True, but the run kept no checkpoint by a metric: give it the "
            "checkpoint_score_attribute of Ray's CheckpointConfig, or leave best out."
        )
    saved = checkpoint.best(directory.checkpoints, metric, order)
    if saved is None:
        raise ConfigError(
            f"{directory.path} has no checkpoint with {metric} yet: leave best out, or let the run go on."
        )
    flat = FlatModel(other, frozen=getattr(method, "frozen", None))
    vector = saved.published()
    if len(vector) < flat.layout.size + len(flat.buffers):
        raise ConfigError(f"{saved.folder} does not fit the model: use the model that the run was begun with.")
    flat.load(vector)
    flat.reset(saved.progress.round)
    module.load_state_dict(other.state_dict())
    return saved.progress.round


def _inputs(directory: RunDirectory) -> Mapping[str, Any]:
    """Return the description of the model's inputs in partition.json."""
    try:
        found = directory.read("partition.json").get("inputs")
    except (PisaError, AttributeError):
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"{directory.path}/partition.json does not say what the model's inputs are: put it back.")
    return found


def _factory(
    recorded: Mapping[str, Any], inputs: Mapping[str, Any], path: Path, *, trust: bool
) -> Callable[[], nn.Module]:
    section: ModelSection = ModelSection.read(recorded.get("model"), "model")
    if section.factory is not None:
        if is_unnamed(section.factory):
            raise ConfigError(
                f"model was {section.factory[1:-1]} when the run was begun, which config.yaml cannot name: give model=."
            )
        if not trust:
            check_installed(section.factory, "model.factory", path)
    return replace(section, weights=None).build(tuple(inputs["shape"]), lambda: int(inputs["outputs"]))


def _preprocess(
    recorded: Mapping[str, Any], inputs: Mapping[str, Any], transform: Any, path: Path, *, trust: bool
) -> Preprocess:
    named = (recorded.get("data") or {}).get("transform")
    if transform is None and named is not None:
        if is_unnamed(named):
            raise ConfigError(
                f"data.transform was {named[1:-1]} when the run was begun, which config.yaml cannot name: give "
                "transform=."
            )
        if not trust:
            check_installed(named, "data.transform", path)
        transform = imported(named, "data.transform")
    if transform is not None:
        return Preprocess(transform=transform)
    mean, std = (None if inputs[name] is None else tuple(inputs[name]) for name in ("mean", "std"))
    return Preprocess(inputs["scale"], mean, std, dtype=DTYPES[inputs["dtype"]])
