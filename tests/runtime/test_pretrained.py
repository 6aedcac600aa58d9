"""Models of transformers are exported as from_pretrained reads them."""

from __future__ import annotations

import pytest
import torch
from runs import run
from torch.nn import functional

from pisa_ray import Data
from pisa_ray.engine.flat_model import FlatModel, load_weights, weights_sha256

transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra `transformers`)")


def classifier():
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, num_channels=1, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=10,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def as_images(x, training):
    return x.float().view(-1, 1, 8, 8) / 16


def loss(output, targets):
    return functional.cross_entropy(output.logits, targets)


def test_a_run_leaves_what_from_pretrained_loads(tmp_path):
    result = run(
        tmp_path / "run",
        model=classifier,
        data=Data(train="digits", test="digits:test", transform=as_images),
        loss=loss,
        metrics=lambda output, targets: {"accuracy": output.logits.argmax(-1) == targets},
        rounds=3,
    )
    names = {path.name for path in (result.path / "pretrained").iterdir()}
    assert {"config.json", "model.safetensors"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt"))]
    loaded = transformers.ViTForImageClassification.from_pretrained(result.path / "pretrained")
    assert weights_sha256(loaded) == result.weights_sha256


def test_tied_weights_stay_tied(tmp_path):
    config = transformers.GPT2Config(vocab_size=11, n_positions=6, n_embd=8, n_layer=1, n_head=2)
    model = FlatModel(transformers.GPT2LMHeadModel(config))
    assert model.module.lm_head.weight is model.module.transformer.wte.weight
    model.parameters.add_(torch.randn(model.parameters.shape))
    model.module.eval()
    digest = model.save(tmp_path / "model.safetensors")

    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "pretrained").eval()
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    assert weights_sha256(loaded) == digest
    tokens = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(loaded(tokens).logits, model.module(tokens).logits)
    fresh = transformers.GPT2LMHeadModel(config)
    load_weights(fresh, tmp_path / "model.safetensors")
    assert weights_sha256(fresh) == digest


def test_other_modules_leave_no_such_folder(tmp_path):
    assert not (run(tmp_path / "run", rounds=1).path / "pretrained").exists()
