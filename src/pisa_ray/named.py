"""Functions that a configuration names, such as model.factory: where they are found, and which ones may be run.

The folder in which a command is run comes last on the path, so that a file in it shadows no installed module. It is on
the path only while such a function is imported or called.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import operator
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pisa_ray.errors import ConfigError

_given_in: str | None = None


def given_in(folder: str) -> None:
    """Set the folder in which the command was run, for a process that works for it; the default is its own folder."""
    global _given_in  # noqa: PLW0603  (the process has one, as it has one sys.path)
    _given_in = folder


@dataclass(frozen=True)
class Named:
    """A function by its name, which each process imports for itself.

    Attributes:
        reference: "package.module:function".
        folder: The folder in which its module may lie; None if the module is installed.
    """

    reference: str
    folder: str | None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        with _importing_from(self.folder):
            return self.find()(*args, **kwargs)

    def find(self) -> Any:
        """Import and return the function."""
        module, _, name = self.reference.partition(":")
        with _importing_from(self.folder):
            return operator.attrgetter(name)(importlib.import_module(module))


def name_of(value: Any) -> str:
    """Return the name of a function or class in a file, or a description in brackets if it has none.

    >>> name_of(Path.exists), name_of(lambda: None)[:22]
    ('pathlib:Path.exists', '<the function <lambda>')
    """
    if isinstance(value, Named):
        return value.reference
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(name, str):
        return f"<an object of {type(value).__module__}.{type(value).__qualname__}>"
    if module not in (None, "__main__") and "<" not in name:
        return f"{module}:{name}"
    return f"<the function {name} of {module}>"


def is_unnamed(text: Any) -> bool:
    """Return whether a recorded text is such a description of an object without a name."""
    return isinstance(text, str) and text.startswith("<") and text.endswith(">")


def current_folder() -> str:
    """Return the folder in which the command was run."""
    return _given_in or str(Path.cwd())


def imported(reference: str, key: str) -> Named:
    """Import the function or class that "package.module:name" names.

    Args:
        reference: The name.
        key: The key of the configuration that names it.

    Raises:
        ConfigError: If there is no such function, or it is in Python's standard library.
    """
    if is_unnamed(reference):
        raise ConfigError(f"{key} was {reference[1:-1]}, which no file can name: give 'package.module:function'.")
    module = reference.partition(":")[0]
    top = module.partition(".")[0]
    check_no_standard(top, reference, key)
    named = Named(reference, None if is_installed(top) else current_folder())
    try:
        function = named.find()
    except (Exception, SystemExit) as error:  # the user's module may raise anything when it is imported
        found = getattr(sys.modules.get(module), "__file__", None)
        where = f"; that is {found}" if found and isinstance(error, AttributeError) else ""
        raise ConfigError(
            f"{key} is {reference!r}, but it must be 'package.module:function' "
            f"({type(error).__name__}: {error}{where})."
        ) from error
    if not callable(function):
        raise ConfigError(f"{key} is {reference!r}, but that is a {type(function).__name__}: name a function.")
    if inspect.isroutine(function) or inspect.isclass(function):
        check_no_standard(str(function.__module__).partition(".")[0], reference, key)
    return named


def is_installed(top: str) -> bool:
    """Return whether a top-level module is one of an installed package, without importing it."""
    if top == "pisa_ray":
        return True
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    places = list(spec.submodule_search_locations or [spec.origin or ""])
    return bool(places) and all(_is_in_packages(Path(place)) for place in places)


def _is_in_packages(place: Path) -> bool:
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    return any(
        place.resolve().is_relative_to(Path(folder).resolve()) for folder in (*folders, site.getusersitepackages())
    )


def check_no_standard(top: str, reference: str, key: str) -> None:
    """Refuse a name in Python's standard library.

    Raises:
        ConfigError: If the module is in it.
    """
    if top in sys.stdlib_module_names or top == "__main__":
        raise ConfigError(
            f"{key} is {reference!r}, but {top} is a part of Python, not a module of yours or of an installed package: "
            "name a function of such a module, and rename your file if it has that name."
        )


@contextmanager
def _importing_from(folder: str | None) -> Iterator[None]:
    """Put a folder at the end of the import path for a while."""
    if folder is None or folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
