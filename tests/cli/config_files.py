"""The smallest configuration file, the sentence that refuses one, and every key that one may have."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pisa_ray.cli.config import Config
from pisa_ray.cli.words import spoken
from pisa_ray.data import Distortion
from pisa_ray.errors import ConfigError
from pisa_ray.options import Kind, Options, annotated, members
from pisa_ray.options import keys as options_keys

SMALLEST = "data: {dataset: digits}\npartition: {kind: iid, shards: 2}\nmodel: {kind: mlp}\n"

Load = Callable[..., Config]


def refused(read: Load, *settings: str, text: str = SMALLEST) -> str:
    """The sentence that refuses some settings."""
    with pytest.raises(ConfigError) as caught:
        read(*settings, text=text)
    sentence = spoken(str(caught.value))
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert not re.search(r"pydantic|Section|\bvalid (integer|number|list|string|dictionary)|extract|parse", sentence)
    return sentence


#: Keys that hold sections as algorithm is.
AS_ALGORITHM = {"algorithm.rest", "algorithm.groups"}


def keys(options: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a section, dotted."""
    if issubclass(options, Kind) and not hasattr(options, "kind"):
        yield from dict.fromkeys(key for one in options.known().values() for key in keys(one, prefix))
        return
    for key in options.beside:
        yield f"{prefix}{key}"
        yield from keys(Distortion, f"{prefix}{key}.") if key == "distort" else ()
    for key, name in options_keys(options).items():
        yield f"{prefix}{key}"
        for member in members(annotated(options)[name]):
            if isinstance(member, type) and issubclass(member, Options) and f"{prefix}{key}" not in AS_ALGORITHM:
                yield from keys(member, f"{prefix}{key}.")
