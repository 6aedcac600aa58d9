"""--set and the space of a search reach groups of parameters, whose names may have dots."""

import pytest

from pisa_ray import NSISA, SISAD
from pisa_ray.cli.config import load
from pisa_ray.errors import ConfigError

FILE = (
    "data: {dataset: digits}\npartition: {kind: iid, shards: 2}\nmodel: {kind: mlp}\n"
    "algorithm: {groups: {'1.*': {kind: sisa_d, rho: 5}, matrices: nsisa, rest: sisa_d}}\n"
)


def groups(tmp_path, *settings):
    (tmp_path / "a.yaml").write_text(FILE)
    return load(tmp_path / "a.yaml", list(settings)).algorithm.groups


@pytest.mark.parametrize(
    ("setting", "name", "rule"),
    [
        ("algorithm.groups.1.*.sigma=3", "1.*", SISAD(sigma=3, rho=5)),
        ("algorithm.groups.1.*=frozen", "1.*", None),
        ("algorithm.groups.matrices.sigma=5", "matrices", NSISA(sigma=5)),
        ("algorithm.groups.matrices.rest.sigma=5", "matrices", NSISA(rest=SISAD(sigma=5))),
        ("algorithm.groups.3.weight=frozen", "3.weight", None),
        ("algorithm.groups.vectors=sisa_d", "vectors", SISAD()),
        ("algorithm.groups.rest={kind: sisa_d, sigma: 7}", "rest", SISAD(sigma=7)),
    ],
)
def test_a_group_is_reached_or_added_before_the_rest(tmp_path, setting, name, rule):
    found = groups(tmp_path, setting)
    assert found[name] == rule
    assert [*found][-1] == "rest"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("algorithm.groups.matrices=", "algorithm.groups.matrices is empty: give it a rule, or frozen."),
        ("algorithm.groups={1: sisa_d}", "the key 1 in algorithm.groups is not text: write it in quotes."),
        (
            "algorithm.kind=sisa_d",
            "algorithm.kind is 'sisa_d', but algorithm has groups, each with a kind: leave it out.",
        ),
        ("rounds.x=1", "--set rounds.x: rounds is 5 and has no keys of its own."),
    ],
)
def test_what_cannot_be_is_said(tmp_path, setting, sentence):
    with pytest.raises(ConfigError) as caught:
        groups(tmp_path, "rounds=5", setting)
    assert str(caught.value) == sentence
