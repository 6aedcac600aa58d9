"""`model` in the configuration file: a kind of this library, or a factory of the user's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pisa_ray.errors import ConfigError
from pisa_ray.models import MODELS, build_model
from pisa_ray.named import imported
from pisa_ray.options import Count, Options

if TYPE_CHECKING:
    from torch import nn

    from pisa_ray.algorithm.method import Method
    from pisa_ray.trainer.data import Opened


@dataclass(frozen=True, kw_only=True)
class ModelSection(Options):
    """The model.

    Attributes:
        kind: One that has a name, or "package.module:function" as in factory.
        hidden: Widths of an mlp's hidden layers.
        factory: "package.module:function" that makes a model.
        args: Arguments of the kind or the factory.
        weights: model.safetensors of a run, to start from.
    """

    example: ClassVar[str] = "{kind: mlp}"

    kind: str | None = None
    hidden: tuple[Count, ...] | None = None
    factory: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None

    @classmethod
    def spelled(cls, values: dict[str, Any], path: str) -> dict[str, Any]:
        """See Options: a kind with a colon is a factory."""
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

    def check_place(self) -> None:
        """Whether weights that it names are there.

        Raises:
            ConfigError: They are not.
        """
        if self.weights is not None and not os.path.isfile(self.weights):
            raise ConfigError(
                f"model.weights is {self.weights!r}, but there is no such file: give the model.safetensors of a run."
            )

    def default_method(self) -> Method:
        """What suits the model, where the file names no method.

        Raises:
            ConfigError: The factory cannot be imported.
        """
        if self.factory is None:  # those with a name take real numbers: none embeds tokens, as transformers do
            from pisa_ray.algorithm import SISAD

            return SISAD()
        from pisa_ray.trainer.start import default_method

        return default_method(self._called())

    def build(self, data: Opened) -> Callable[[], nn.Module]:
        """A function that makes the model for some data.

        Raises:
            ConfigError: The factory cannot be imported, or weights are not there.
        """
        self.check_place()
        make = self._called() if self.factory is not None else self._of_kind(data)
        if self.weights is None:
            return make
        weights = Path(self.weights)

        def warm() -> nn.Module:
            from pisa_ray.engine.flat_model import load_weights

            model = make()
            load_weights(model, weights)
            return model

        return warm

    def _of_kind(self, data: Opened) -> Callable[[], nn.Module]:
        kind, outputs, options = str(self.kind), data.outputs(), dict(self.args)
        if self.hidden is not None:
            options["hidden"] = list(self.hidden)
        given = {"model.hidden": self.hidden is not None, "model.args": bool(self.args)}
        keys = " and ".join(key for key in given if given[key]) or "model.args"

        def make() -> nn.Module:
            from pisa_ray.engine.user_code import refused

            with refused("model could not be made", f"give {keys} what the model {kind} takes"):
                return build_model(kind, data.train.input_shape, outputs, **options)

        return make

    def _called(self) -> Callable[[], nn.Module]:
        """It raises ConfigError where the factory raises: whoever writes a file gives arguments, not functions."""
        factory, arguments = imported(str(self.factory), "model.factory"), dict(self.args)

        def make() -> nn.Module:
            from pisa_ray.engine.user_code import refused

            with refused("model could not be made", "let model.args and the function of model.factory fit each other"):
                model: nn.Module = factory(**arguments)
                return model

        return make
