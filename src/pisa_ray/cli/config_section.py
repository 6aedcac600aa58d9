"""What all sections of the configuration file share.

They are read without torch and what stands on it, so that a file with a mistake is refused at once: what a section
stands for is imported when it is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class _Default(Enum):
    OF_CLASS = "the default of the class"


#: In place of a value: the class that a section stands for has the default.
OF_CLASS: Any = _Default.OF_CLASS


class Section(BaseModel):
    """Part of the file: an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ClassSection(Section):
    """A section that stands for an object of a class of pisa_ray, whose defaults are its own."""

    #: The names of the classes by the section's kinds; that of one without kinds by "".
    classes: ClassVar[Mapping[str, str]]

    def made_of(self) -> Any:
        """The class."""
        import pisa_ray

        return getattr(pisa_ray, self.classes[getattr(self, "kind", "")])

    def given(self) -> dict[str, Any]:
        """What the file says, as the class takes it; what it does not say is the class's business."""
        values = {name: getattr(self, name) for name in self.model_fields_set if name != "kind"}
        return {name: _tuples(value) for name, value in values.items()}

    def build(self) -> Any:
        """As the trainer takes it."""
        return self.made_of()(**self.given())

    def default(self, name: str) -> Any:
        """What the class has where the file says nothing."""
        value = getattr(self.made_of(), name)
        return list(value) if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def complete(value: Any) -> None:
    """Write defaults of classes down, in a section and all below it.

    Args:
        value: A section, or what one holds.
    """
    if isinstance(value, Section):
        for name, item in value:
            if item is OF_CLASS and isinstance(value, ClassSection):
                setattr(value, name, value.default(name))
            complete(item)
    elif isinstance(value, dict):
        for item in value.values():
            complete(item)
