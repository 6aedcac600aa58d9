"""A model that refuses the type of its inputs is told which setting says what they are."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from pisa_ray import IID, Data
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare

ROWS = 12
TOKENS = torch.arange(ROWS * 4).reshape(ROWS, 4) % 7
LABELS = torch.arange(ROWS) % 2


def embedding(tokens: int = 7) -> nn.Module:
    return nn.Sequential(nn.Embedding(tokens, 3), nn.Flatten(), nn.Linear(12, 2))


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))


def prepared(x: torch.Tensor, model: nn.Module, **settings):
    data = Data(train=TensorDataset(x, LABELS), **settings)
    return prepare(Config(model=model, data=data, partition=IID(2), batch_size=4))


PIXELS = TOKENS.to(torch.uint8).reshape(ROWS, 1, 2, 2)


@pytest.mark.parametrize(
    ("x", "model", "settings"),
    [
        *((TOKENS.to(kind), embedding, {}) for kind in (torch.uint8, torch.int16, torch.int32, torch.int64)),
        (TOKENS / 7, linear, {}),
        (TOKENS.double(), linear, {}),
        (TOKENS, linear, {"dtype": "float32"}),
        (TOKENS, linear, {"scale": 0.1}),
        (TOKENS > 3, linear, {}),
        (PIXELS, linear, {}),
        (PIXELS, lambda: nn.Sequential(nn.Flatten(), embedding()), {"dtype": "int64"}),
    ],
)
def test_models_get_the_type_that_they_are_made_for(x, model, settings):
    assert prepared(x, model(), **settings).classes == 2


@pytest.mark.parametrize(
    ("x", "model", "settings", "sentence"),
    [
        (TOKENS, linear, {}, "inputs of type int64 .*, but it can be applied to float32: set data.dtype to float32"),
        (
            TOKENS,
            embedding,
            {"dtype": "float32"},
            "inputs of type float32 .*, but it can be applied to int64: set data.dtype to int",
        ),
        (TOKENS.float(), embedding, {}, "but it can be applied to int64: store integers and set data.dtype to int64"),
        (PIXELS, lambda: nn.Sequential(nn.Flatten(), embedding()), {}, "be applied to int64: set data.dtype to int64"),
        (
            TOKENS,
            linear,
            {"transform": lambda x, training: x},
            "but it can be applied to float32: return float32 from data.transf",
        ),
    ],
)
def test_the_setting_is_named_where_another_type_would_do(x, model, settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        prepared(x, model(), **settings)


@pytest.mark.parametrize(
    ("x", "model"),
    [
        (TOKENS, lambda: embedding(5)),  # tokens that it has no vector for
        (TOKENS / 7, embedding),  # real numbers are no tokens
        (TOKENS, lambda: nn.Linear(3, 2)),
        (torch.complex(TOKENS.float(), TOKENS.float()), linear),
    ],
)
def test_it_is_not_named_where_it_would_not_help(x, model):
    with pytest.raises(ConfigError, match="model cannot be applied to data") as raised:
        prepared(x, model())
    assert "dtype to" not in str(raised.value)


def test_columns_of_token_numbers_are_told_so_too():
    table = pa.table({"a": np.arange(ROWS) % 7, "b": np.arange(ROWS) % 5, "y": LABELS.numpy()})
    model = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(6, 2))
    settings = {"input": ["a", "b"], "label": "y"}
    with pytest.raises(ConfigError, match="store integers and set data"):
        prepare(Config(model=model, data=Data(train=table, **settings), partition=IID(2)))
    prepare(Config(model=model, data=Data(train=table, dtype="int64", **settings), partition=IID(2)))
