"""What is saved of a wrapped model has the names of the plain one, and goes into either."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pisa_ray.engine.flat_model import FlatModel, load_weights


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 2)))


class Compiled(nn.Module):
    """Has the names that torch.compile gives, whose import takes seconds."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module


def compiled(module: nn.Module) -> nn.Module:
    return Compiled(module)


def compiled_part() -> nn.Module:
    module = plain()
    module[2] = compiled(module[2])
    return compiled(module)


def tied() -> nn.Module:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    return module


@pytest.mark.parametrize(
    ("wrapped", "bare"),
    [
        (lambda: compiled(plain()), plain),
        (compiled_part, plain),
        (lambda: nn.DataParallel(plain()), plain),
        (lambda: compiled(nn.DataParallel(plain())), plain),
        (lambda: nn.Sequential(nn.DataParallel(nn.Linear(3, 2))), lambda: nn.Sequential(nn.Linear(3, 2))),
        (lambda: compiled(tied()), tied),
        (lambda: nn.ModuleDict({"module": nn.Linear(3, 2)}), lambda: nn.ModuleDict({"module": nn.Linear(3, 2)})),
    ],
)
def test_a_wrapped_model_is_saved_under_the_names_of_the_plain_one(wrapped, bare, tmp_path):
    model = FlatModel(wrapped())
    digest = model.save(tmp_path / "model.safetensors")
    assert sorted(load_file(tmp_path / "model.safetensors")) == sorted(FlatModel(bare()).saved_tensors())
    for make in (wrapped, bare):
        other = make()
        load_weights(other, tmp_path / "model.safetensors")
        assert FlatModel(other).save(tmp_path / "again.safetensors") == digest


@pytest.mark.slow
def test_torch_compile_gives_the_names_that_we_know(tmp_path):
    model = FlatModel(torch.compile(plain(), backend="eager"))
    model.save(tmp_path / "model.safetensors")
    assert sorted(load_file(tmp_path / "model.safetensors")) == sorted(plain().state_dict())


def test_a_file_with_the_compilers_names_is_taken(tmp_path):
    module = plain()
    save_file({f"_orig_mod.{name}": t for name, t in module.state_dict().items()}, tmp_path / "old.safetensors")
    other = plain()
    load_weights(other, tmp_path / "old.safetensors")
    assert torch.equal(other[0].weight, module[0].weight)
