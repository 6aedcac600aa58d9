"""A new option is one field with a sentence: argument, key, check, record, resume and help follow from it."""

from dataclasses import dataclass
from typing import Annotated

import pytest

from pisa_ray.cli.keys import lines
from pisa_ray.cli.words import spoken
from pisa_ray.errors import ConfigError
from pisa_ray.fields import FREE, INLINE, Count, Free, Key, free
from pisa_ray.options import Options
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.model import ModelSection

SECTION = {"data": {"dataset": "digits"}, "partition": {"kind": "iid", "shards": 2}, "model": {"kind": "mlp"}}


@dataclass(frozen=True, kw_only=True)
class Naps(Options):
    """How often a run rests.

    Attributes:
        every: Rounds between two naps; None: it never rests.
        length: Seconds of a nap.
    """

    every: Annotated[Count | None, Key("nap.every"), FREE] = None
    length: Annotated[Count, Key("nap.length")] = 5


@dataclass(frozen=True, kw_only=True)
class WithMore(Config):
    """A configuration with more options.

    Attributes:
        dreams: How many there are; a number may change, but no text.
        naps: When it rests.
    """

    dreams: Annotated[Count | str, Free(str)] = 1
    naps: Annotated[Naps, INLINE] = Naps()


def read(**more):
    return WithMore.read(SECTION | more, "")


def test_it_is_an_argument_and_a_key():
    config = read(dreams=3, nap={"every": 7})
    assert (config.dreams, config.naps) == (3, Naps(every=7))
    assert config.written()["nap"] == {"every": 7, "length": 5}
    assert WithMore.read(config.written(), "") == config
    given = WithMore(data=config.data, partition=config.partition, model=ModelSection(kind="mlp"), dreams=3)
    assert given.written() == read(dreams=3).written()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"dream": 3}, "dream is not a setting: the nearest one is dreams."),
        ({"dreams": 0}, "dreams is 0, but it must be a whole number of at least 1 or text in quotes."),
        ({"nap": {"evry": 3}}, "nap.evry is not a setting: the nearest one is every."),
        ({"nap": {"every": 0}}, "nap.every is 0, but it must be a whole number of at least 1 or null."),
        ({"nap": 3}, "nap is 3, but it must be a section with every and length."),
        ({"nap": {"length": None}}, "nap.length is null, but it must be a whole number of at least 1."),
    ],
)
def test_what_is_wrong_with_it_is_said_in_the_words_of_the_file(more, sentence):
    with pytest.raises(ConfigError) as error:
        read(**more)
    assert spoken(str(error.value)) == sentence


def test_an_empty_section_means_its_defaults():
    assert read(nap=None) == read()


def test_in_python_it_is_named_as_an_argument():
    config = read()
    with pytest.raises(ConfigError, match=r"^dreams is 0, but it must be a whole number"):
        WithMore(data=config.data, partition=config.partition, model=config.model, dreams=0)


def test_what_a_resume_may_change_is_known():
    assert free(WithMore)["dreams"] == (str,)
    assert free(WithMore)["nap.every"] == ()
    assert "nap.length" not in free(WithMore)


def test_help_has_it():
    found = {line.key: line for line in lines(WithMore)}
    assert found["dreams"].meaning == "How many there are; a number may change, but no text."
    assert (found["nap.every"].default, found["nap.length"].default) == ("null", "5")
    assert found["nap.every"].meaning == "Rounds between two naps; null: it never rests."
