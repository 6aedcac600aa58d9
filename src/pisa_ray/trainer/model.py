"""The model that a file chooses: one of this library, or the user's own factory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pisa_ray import checks
from pisa_ray.errors import ConfigError
from pisa_ray.fields import Count
from pisa_ray.later import torch
from pisa_ray.models import MODELS, build_model
from pisa_ray.named import imported, name_of
from pisa_ray.options import Options

if TYPE_CHECKING:
    from torch import nn

    from pisa_ray.trainer.data import Opened


def _model(name: str, value: Any) -> Any:
    return value if callable(value) or isinstance(value, ModelSection) else checks.NOT


@dataclass(frozen=True, kw_only=True)
class ModelSection(Options):
    """The model.

    Attributes:
        kind: The name of a model, which is sized by the data: "mlp", "lenet", "resnet18", "resnet34", "vgg11",
            "densenet121", or one that an installed package gives. A name with a colon is a factory.
        hidden: For mlp: the widths of the hidden layers; None: [64].
        factory: A function that returns a torch.nn.Module, as "package.module:function", on the Python path or else in
            the current folder.
        args: Keyword arguments of the factory or of the kind.
        weights: A model.safetensors with the initial weights.
    """

    example: ClassVar[str] = "{kind: mlp}"

    kind: str | None = None
    hidden: tuple[Count, ...] | None = None
    factory: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None

    @classmethod
    def spelled(cls, values: dict[str, Any], path: str) -> dict[str, Any]:
        """Override `Options.spelled`: a kind with a colon is a factory."""
        if isinstance(kind := values.get("kind"), str) and ":" in kind and values.get("factory") is None:
            return values | {"kind": None, "factory": kind}
        return values

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.kind is None) == (self.factory is None):
            raise ConfigError("model needs either kind or factory (package.module:function), and not both.")
        if self.kind is not None:
            MODELS.chosen(self.kind, "model.kind")
        if self.hidden is not None and self.kind != "mlp":
            raise ConfigError(f"model.hidden is for kind mlp, but model.kind is {self.kind}: leave it out.")

    @classmethod
    def of(cls, model: Any) -> ModelSection:
        """Return the section of a file that stands for a model given in Python."""
        return model if isinstance(model, ModelSection) else cls(factory=name_of(model))

    def check_place(self) -> None:
        """Refuse weights that do not exist.

        Raises:
            ConfigError: If there is no such file.
        """
        if self.weights is not None and not os.path.isfile(self.weights):
            raise ConfigError(
                f"model.weights is {self.weights!r}, but there is no such file: give the model.safetensors of a run."
            )

    def fed(self, data: Opened, dtype: str | None) -> Opened:
        """Return the data with inputs of the type that the model takes; a model of this library takes real numbers.

        Args:
            data: The opened data.
            dtype: The type that the user asks for.

        Raises:
            ConfigError: If the model does not take that type.
        """
        if self.kind is None:
            return data
        if dtype == "int64":
            raise ConfigError(
                f"data.dtype is int64, but model.kind {self.kind} takes real numbers: leave data.dtype out, or use a "
                "model.factory."
            )
        return replace(data, preprocess=replace(data.preprocess, dtype=torch.float32))

    def build(self, input_shape: tuple[int, ...], outputs: Callable[[], int]) -> Callable[[], nn.Module]:
        """Return a function that makes the model.

        Args:
            input_shape: The shape of one input.
            outputs: Returns the number of outputs of a model of this library.

        Raises:
            ConfigError: If the factory cannot be imported, or the weights do not exist.
        """
        self.check_place()
        make = self.called() if self.factory is not None else self._of_kind(input_shape, outputs())
        if self.weights is None:
            return make
        weights = Path(self.weights)

        def warm() -> nn.Module:
            from pisa_ray.engine.flat_model import load_weights

            model = make()
            load_weights(model, weights)
            return model

        return warm

    def _of_kind(self, input_shape: tuple[int, ...], outputs: int) -> Callable[[], nn.Module]:
        kind, options = str(self.kind), dict(self.args)
        if self.hidden is not None:
            options["hidden"] = list(self.hidden)
        given = {"model.hidden": self.hidden is not None, "model.args": bool(self.args)}
        keys = " and ".join(key for key in given if given[key]) or "model.args"

        def make() -> nn.Module:
            from pisa_ray.engine.user_code import refused

            with refused("model could not be made", f"give {keys} what the model {kind} takes"):
                return build_model(kind, input_shape, outputs, **options)

        return make

    def called(self) -> Callable[[], nn.Module]:
        """Return a function that calls the factory, and raises ConfigError if the factory raises.

        Raises:
            ConfigError: If the factory cannot be imported.
        """
        factory, arguments = imported(str(self.factory), "model.factory"), dict(self.args)

        def make() -> nn.Module:
            from pisa_ray.engine.user_code import refused

            with refused("model could not be made", "let model.args and the function of model.factory fit each other"):
                model: nn.Module = factory(**arguments)
                return model

        return make


if TYPE_CHECKING:
    #: The model that a run trains.
    Model = nn.Module | Callable[[], nn.Module] | ModelSection
else:
    Model = Annotated[ModelSection | Any, checks.Rule("a torch.nn.Module or a function", _model)]
