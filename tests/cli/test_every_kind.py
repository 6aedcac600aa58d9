"""What every kind and every function that has a name owes, read from where they are known: a new one is tried, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from every import FAMILIES, every

from pisa_ray.cli.keys import sentences
from pisa_ray.errors import ConfigError
from pisa_ray.fields import keys
from pisa_ray.models import MODELS, build_model
from pisa_ray.registry import Registry
from pisa_ray.trainer.config import Problem
from pisa_ray.trainer.model import ModelSection
from pisa_ray.trainer.objective import LOSSES, METRICS

KINDS = [(path, kind, one) for path, family in FAMILIES.items() for kind, one in every(family).items()]


@pytest.mark.parametrize(("path", "kind", "one"), KINDS, ids=[f"{path}={kind}" for path, kind, _ in KINDS])
def test_a_kind_is_read_as_it_is_written_and_refuses_what_no_field_can_be(path: str, kind: str, one: Any) -> None:
    family, section = FAMILIES[path], one.written()
    assert section["kind"] == kind
    assert family.read(section, path) == one
    for key in keys(type(one)):
        with pytest.raises(ConfigError, match=rf"^{path}\.{key}(\[0\])? is \[?\[\{{\}}\]?\]?, but it must be "):
            family.read(section | {key: [[{}]]}, path)


@pytest.mark.parametrize(
    ("options", "key", "names"),
    [(ModelSection, "kind", MODELS), (Problem, "loss", LOSSES), (Problem, "metrics", METRICS)],
)
def test_the_sentence_on_a_key_lists_the_names(options: Any, key: str, names: Registry) -> None:
    assert [name for name in names.known() if f'"{name}"' not in sentences(options)[key]] == []


@pytest.mark.parametrize("name", MODELS.known())
def test_a_model_has_as_many_outputs_as_it_is_asked_for(name: str) -> None:
    with torch.device("meta"):  # shapes alone
        model = build_model(name, (3, 64, 64), 5)
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize("name", LOSSES.known())
def test_a_loss_is_the_mean_over_the_rows(name: str) -> None:
    output, target = torch.randn(4, 3), torch.rand(4, 3)
    loss = LOSSES.chosen(name, "loss")
    rows = [loss(output[i : i + 1], target[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(loss(output, target), torch.stack(rows).mean())


@pytest.mark.parametrize("name", METRICS.known())
def test_a_metric_has_a_value_a_row(name: str) -> None:
    values = METRICS.chosen(name, "metrics")(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))
    assert {len(value) for value in values.values()} == {4}
