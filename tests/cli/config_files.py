"""The smallest configuration file, the sentence that refuses one, and every key that one may have."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pisa_ray.cli.words import spoken
from pisa_ray.errors import ConfigError
from pisa_ray.fields import annotated, inline, members
from pisa_ray.fields import keys as options_keys
from pisa_ray.kinds import Kind
from pisa_ray.options import Options
from pisa_ray.trainer.config import Config

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
    for key, annotation in options.beside.items():
        yield f"{prefix}{key}"
        for member in members(annotation):
            if isinstance(member, type) and issubclass(member, Options):
                yield from keys(member, f"{prefix}{key}.")
    for annotation in annotated(options).values():
        if (group := inline(annotation)) is not None:
            yield from keys(group, prefix)
    yield from dict.fromkeys(
        key.rpartition(".")[0] for key in options_keys(options) if "." in key and options is Config
    )
    for key, name in options_keys(options).items():
        yield f"{prefix}{key}"
        for member in members(annotated(options)[name]):
            if isinstance(member, type) and issubclass(member, Options) and f"{prefix}{key}" not in AS_ALGORITHM:
                yield from keys(member, f"{prefix}{key}.")
