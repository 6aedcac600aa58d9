"""What is given as the model makes the same new model each time, or one sentence says why it does not."""

import random
import secrets
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from pisa_ray import ConfigError
from pisa_ray.cli.main import main
from pisa_ray.engine.flat_model import FlatModel
from pisa_ray.engine.numerics import borrowed_process
from pisa_ray.trainer.model_factory import model_factory, steady


def made(model, seed: int = 0) -> tuple[nn.Module, tuple[str, ...]]:
    with borrowed_process(threads=1):
        make, notes = steady(model_factory(model), seed)
        torch.manual_seed(seed)
        FlatModel(module := make())
    return module, notes


class Cached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(3, 2), None

    def forward(self, x):
        self.seen = self.layer(x)
        return self.seen


def cached() -> nn.Module:
    module = Cached()
    module(torch.ones(1, 3))
    return module


def listed() -> nn.Module:
    module = nn.Linear(3, 2)
    module.all = [module(torch.ones(1, 3))]
    return module


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(nn.Linear(3, 2))


def drawn_by(draw):
    def make() -> nn.Module:
        module = nn.Linear(3, 2)
        nn.init.constant_(module.weight, draw())
        return module

    return make


def with_buffer(value):
    def make() -> nn.Module:
        module = nn.Linear(3, 2)
        module.register_buffer("frequencies", torch.tensor([value()]))
        return module

    return make


def raises():
    raise OSError("no such file: weights.bin.")


def needs(width):
    return nn.Linear(width, 2)


def complex_linear() -> nn.Module:
    module = nn.Linear(3, 2)
    module.twiddle = nn.Parameter(torch.ones(2, dtype=torch.cfloat))
    return module


def frozen() -> nn.Module:
    return nn.Linear(3, 2).requires_grad_(requires_grad=False)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: None, "model: the function returned nothing, but it must return a torch.nn.Module: add a return"),
        (lambda: nn.Linear, "model: the function returned the class Linear"),
        (lambda: [nn.Linear(3, 2)], "model: the function returned a list"),
        (lambda: {"model": nn.Linear(3, 2)}, "model: the function returned a dict"),
        (lambda: torch.ones(3), "model: the function returned a Tensor"),
        (nn.Linear, "model could not be made: TypeError: .* missing 2 required positional arguments"),
        (
            needs,
            "model could not be made: TypeError: .*width.*; give a torch.nn.Module, or a function without arguments",
        ),
        (
            raises,
            r"model could not be made: OSError: no such file: weights.bin \(at test_model_factory.py:\d+ in raises\);",
        ),
        (lambda: 1 / 0, "model could not be made: ZeroDivisionError: division by zero"),
        (lambda: sys.exit(3), "model could not be made: SystemExit: 3"),
        (lambda: nn.LazyLinear(2), "model is lazy: the shape of weight"),
        (lambda: nn.Sequential(nn.LazyConv2d(2, 3)), "model is lazy: the shape of 0.weight"),
        (lambda: nn.Sequential(nn.Linear(3, 2), nn.LazyBatchNorm1d()), "model is lazy: the shape of 1"),
        (nn.LazyLinear(2), "model is lazy"),
        (complex_linear, r"model has complex numbers in parameter twiddle.*view_as_real\(twiddle\)"),
        (lambda: nn.Linear(3, 2, device="meta"), "model has no values in weight, which is on the meta device"),
        (frozen, "model has no trainable parameters"),
        (nn.ReLU, "model has no trainable parameters"),
        (cached(), "model cannot be copied, .* in seen: give a function that makes the module"),
        (listed(), "model cannot be copied, .* in all: give a function"),
        (torch.inference_mode()(lambda: nn.Linear(3, 2)), "model has made weight in inference mode"),
        (nn.Sequential(nn.ReLU(), cached()), "model cannot be copied, .* in 1.seen"),
        (old_weight_norm(), "model cannot be copied, .* in weight: give a function"),
        (drawn_by(np.random.default_rng().normal), "model: the function gives weight other values each time"),
        (drawn_by(lambda: secrets.randbelow(1 << 20)), "model: the function gives weight other values each time"),
        (with_buffer(random.SystemRandom().random), "model: the function gives frequencies other values each time"),
        (lambda: nn.Linear(3, random.SystemRandom().randrange(2, 1000)), "gives weight other values each time"),
    ],
)
def test_what_makes_no_model_is_refused_in_one_sentence(model, said):
    with pytest.raises(ConfigError, match=said) as caught:
        made(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(3, 2),
        lambda: nn.Linear(3, 2),
        old_weight_norm,
        Cached,
        cached,
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
        nn.utils.parametrizations.orthogonal(nn.Linear(3, 2)),
        lambda: nn.Sequential(nn.LazyLinear(2), nn.ReLU())(torch.ones(1, 3)) is None or nn.Linear(3, 2),
        drawn_by(random.random),
        drawn_by(np.random.normal),
        with_buffer(lambda: float("nan")),
        with_buffer(lambda: 1j),
        lambda: torch.jit.script(nn.Linear(3, 2)),
    ],
)
def test_models_of_many_kinds_are_made_alike(model):
    module, notes = made(model)
    assert notes == ()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), made(model)[0].parameters(), strict=True))


def test_a_lazy_model_that_has_been_called_is_taken():
    def make():
        module = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.LazyLinear(2))
        module(torch.zeros(2, 3))
        return module

    assert made(make)[0][0].weight.shape == (4, 3)


def test_a_function_that_returns_one_module_each_time_gives_copies():
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {name: t.clone() for name, t in module.state_dict().items()}
    copy, _ = made(lambda: module)
    assert copy is not module
    with torch.no_grad():
        copy(torch.ones(2, 3))
        copy[0].weight += 1
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())


@pytest.mark.parametrize(
    ("dtypes", "said"),
    [
        ([torch.float64], ("the model's parameters of type float64 are trained and saved as float32",)),
        (
            [torch.float16, torch.bfloat16],
            ("the model's parameters of type bfloat16, float16 are trained and saved as float32",),
        ),
        ([torch.float32], ()),
    ],
)
def test_types_that_are_not_kept_are_told(dtypes, said):
    module, notes = made(lambda: nn.Sequential(*(nn.Linear(3, 3, dtype=dtype) for dtype in dtypes)))
    assert notes == said
    assert {p.dtype for p in module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("factory", "args", "said"),
    [
        ("torch:zeros", "{size: [3]}", "model: the function returned a Tensor"),
        ("torch:set_printoptions", "{}", "model: the function returned nothing"),
        ("torch.nn:Linear", "{in_features: 64}", "model could not be made: TypeError"),
        (
            "torch.nn:Linear",
            "{in_features: 64, out_features: -1}",
            "model could not be made: RuntimeError",
        ),
        ("torch.nn:LazyLinear", "{out_features: 10}", "model is lazy"),
        ("torch.nn:Linear", "{in_features: 63, out_features: 10}", "model cannot be applied to data.train, inputs of"),
    ],
)
@pytest.mark.parametrize("algorithm", ["{kind: auto}", "{kind: sisa, sigma: 1, rho: 1}"])
def test_a_factory_in_the_configuration_that_makes_no_model_ends_with_status_2(
    factory, args, said, algorithm, tmp_path, capsys
):
    config = tmp_path / "c.yaml"
    config.write_text(
        "data: {dataset: digits}\npartition: {kind: iid, shards: 2}\nrounds: 1\nworkers: 0\n"
        f"algorithm: {algorithm}\n"
        f"model: {{factory: '{factory}', args: {args}}}\n"
    )
    assert main(["train", str(config), "--out", str(tmp_path / "run"), "--quiet"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "without arguments" not in lines[0]  # a file gives no function, but arguments
    assert lines[0].startswith(f"pisa-ray: {said}")
    assert not (tmp_path / "run").exists()
