"""What the user's model, loss, metrics and transform return or do is looked at before anything is started."""

import random
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

from pisa_ray import IID, ConfigError, Data
from pisa_ray.algorithm import MOON, PISA, SISA, EmpiricalFisher, HessianDiagonal
from pisa_ray.engine.evaluation import means
from pisa_ray.engine.flat_model import FlatModel
from pisa_ray.engine.gradient import gradient
from pisa_ray.errors import PisaError
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare
from pisa_ray.trainer.start import default_method

INPUTS = torch.linspace(-1, 1, 24 * 4).view(24, 4)
CLASSES = TensorDataset(INPUTS, torch.arange(24) % 3)
NUMBERS = TensorDataset(INPUTS, torch.linspace(0, 1, 24))


def linear() -> nn.Module:
    return nn.Linear(4, 3)


def one() -> nn.Module:
    return nn.Linear(4, 1)


def prepared(model=linear, train=CLASSES, **changes):
    arguments = {"partition": IID(2), "algorithm": SISA(sigma=1.0, rho=1.0), "batch_size": 8}
    data = Data(train=train, transform=changes.pop("transform", None), test=changes.pop("test", None))
    return prepare(Config(model=model, data=data, **(arguments | changes)))


def hit(output, target):
    return output.argmax(1) == target


_CENTRE = nn.Parameter(torch.zeros(3))


def with_parameters(output, target):
    return functional.cross_entropy(output, target) + (output - _CENTRE).square().mean()


def measuring(values):
    return {"loss": functional.cross_entropy, "metrics": values}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (lambda o, t: {"accuracy": hit(o, t).float().mean()}, r"'accuracy' as one number for all rows.*without .mean"),
        (lambda o, t: {"accuracy": float(hit(o, t).float().mean())}, "'accuracy' as a float"),
        (lambda o, t: {"accuracy": 1}, "'accuracy' as a int"),
        (
            lambda o, t: {"accuracy": hit(o, t).numpy()},
            r"'accuracy' as a ndarray.*make a tensor of it, torch",
        ),
        (lambda o, t: {"accuracy": hit(o, t).tolist()}, r"'accuracy' as a list.*make a tensor of it, torch.as_tensor"),
        (lambda o, t: {"accuracy": None}, "'accuracy' as a NoneType"),
        (lambda o, t: {"big": o > 0}, r"'big' as a tensor of shape \(2, 3\).*each row's mean"),
        (lambda o, t: {"hit": hit(o, t)[:, None]}, r"'hit' as a tensor of shape \(2, 1\).*flatten"),
        (lambda o, t: {"first": hit(o, t)[:1]}, r"'first' as a tensor of shape \(1,\)"),
        (lambda o, t: {"classes": o.mean(0)[:2]}, r"'classes' as a tensor of shape \(2,\).*for 3 rows"),
        (lambda o, t: {"pairs": t[:, None] == t}, r"'pairs' as a tensor of shape \(2, 2\)"),
        (lambda o, t: {"z": o[:, 0] * 1j}, "'z' as complex numbers"),
        (lambda o, t: {3: hit(o, t)}, "names a metric 3"),
        (lambda o, t: {"": hit(o, t)}, "names a metric ''"),
        (lambda o, t: {"a\nb": hit(o, t)}, "names a metric 'a\\\\nb'"),
        (lambda o, t: {"rows": hit(o, t)}, "names a metric 'rows', but rows and loss"),
        (lambda o, t: {"loss": hit(o, t)}, "names a metric 'loss'"),
        (lambda o, t: {"worst_shard_loss": hit(o, t)}, "names a metric 'worst_shard_loss'"),
        (hit, "metrics returns a Tensor, but it must return a dict"),
        (lambda o, t: None, "metrics returns a NoneType"),
        (
            lambda o, t: {"accuracy": hit(o, t), **({"odd": hit(o, t)} if len(t) % 2 else {})},
            "returns odd for some rows",
        ),
        (lambda o, t: {"accuracy": o.logits}, r"metrics cannot be applied to an output of shape \(2, 3\) float32 and"),
    ],
)
def test_metrics_that_are_not_one_number_a_row_are_refused_by_name(values, said):
    with pytest.raises(ConfigError, match=said):
        prepared(**measuring(values))


def test_metrics_of_any_real_type_are_measured():
    def values(output, target):
        return {"hit": hit(output, target), "label": target, "half": output[:, 0].half()}

    assert prepared(**measuring(values)).metrics[:1] == ("train_loss",)
    assert prepared(test=CLASSES, **measuring(values)).metrics[:4] == (
        "test_loss",
        "test_hit",
        "test_label",
        "test_half",
    )


def test_metrics_whose_names_change_in_the_middle_of_a_run_end_it():
    whole, part = {"rows": 2.0, "loss": 1.0, "hit": 1.0}, {"rows": 2.0, "loss": 1.0}
    with pytest.raises(PisaError, match="metrics returns hit for some rows and not for others"):
        means([whole, part])


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda o, t: functional.cross_entropy(o, t, reduction="none"), r"loss returns a tensor of shape \(2,\).*mean"),
        (lambda o, t: functional.cross_entropy(o, t, reduction="sum"), "loss adds up over the rows"),
        (lambda o, t: functional.cross_entropy(o, t).item(), "loss returns a float"),
        (lambda o, t: None, "loss returns a NoneType"),
        (lambda o, t: functional.cross_entropy(o.detach(), t), "loss does not depend on the model's parameters"),
        (lambda o, t: (o.argmax(1) != t).float().mean(), "loss does not depend on the model's parameters"),
        (lambda o, t: (o.argmax(1) != t).sum(), "loss returns a number of type torch.int64"),
        (lambda o, t: o.sum() * 1j, "loss returns a number of type torch.complex64"),
        (lambda o, t: (o - 1e9).sqrt().mean(), "outputs are finite, so look at the loss"),
        (
            lambda o, t: functional.nll_loss(o, t.float()),
            r"loss cannot be applied to an output of shape \(2, 3\) float32 a",
        ),
        (nn.CrossEntropyLoss, r"loss is the class CrossEntropyLoss, but a function is needed: .* CrossEntropyLoss\(\)"),
        (with_parameters, r"model or loss use a parameter of shape \(3,\) that is not one of the model's"),
        (lambda o, t: functional.cross_entropy(o, t.clamp_(max=1)), "loss changes the targets in place"),
        (lambda o: o.mean(), "loss cannot be applied to .*TypeError"),
        (lambda o, t: o.logits.mean(), "loss cannot be applied to"),
        (
            lambda o, t: (o - o.detach()).sqrt().mean(),
            "gradient of parameter weight is not finite at the initial model",
        ),
    ],
)
def test_losses_that_are_no_finite_mean_of_the_rows_are_refused(loss, said):
    with pytest.raises(ConfigError, match=said):
        prepared(loss=loss)


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, t: ((o - t) ** 2).mean(),
        functional.mse_loss,
        functional.huber_loss,
        lambda o, t: (o - t).abs().mean(),
        lambda o, t: torch.sigmoid(o).sub(t).square().mean(),
        lambda o, t: functional.mse_loss(o.unsqueeze(2), t[:, None]),
    ],
)
@pytest.mark.parametrize(
    "targets", [NUMBERS, TensorDataset(INPUTS, torch.ones(24)), TensorDataset(INPUTS, torch.arange(24) % 2)]
)
def test_a_loss_that_lets_every_output_meet_every_target_is_refused(loss, targets):
    with pytest.raises(ConfigError, match=r"shape \(\d, 1.*stretches|Using a target size"):
        prepared(one, train=targets, loss=loss)


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (one, lambda o, t: functional.mse_loss(o.squeeze(1), t)),
        (one, lambda o, t: functional.mse_loss(o, t[:, None])),
        (one, lambda o, t: 0 * o.sum()),
        (one, lambda o, t: (o**2 - o).mean()),  # asks nothing of the targets
        (one, lambda o, t: functional.binary_cross_entropy_with_logits(o.view_as(t), t)),
        (linear, lambda o, t: (torch.tensor([0.1, 0.5, 0.9]) - (t[:, None] > o).float() + o).abs().mean()),
        (lambda: nn.Sequential(one(), nn.Flatten(0)), functional.mse_loss),
        (lambda: nn.Sequential(one(), nn.Flatten(0)), functional.poisson_nll_loss),
    ],
)
def test_losses_that_bring_outputs_and_targets_to_one_shape_are_taken(model, loss):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prepared(model, train=NUMBERS, loss=loss).metrics[0] == "train_loss"


class Around(nn.Module):
    """A linear layer whose forward pass does something else besides."""

    def __init__(self, besides) -> None:
        super().__init__()
        self.layer, self.besides, self.calls = linear(), besides, 0

    def forward(self, x):
        self.calls += 1
        return self.besides(self, x, self.layer(x))


LOOSE = [linear()]


def drops_gradients(self, x, y):
    if self.training:
        self.layer.zero_grad()
    return y


def assigns_gradients(self, x, y):
    for p in self.parameters():
        p.grad = torch.zeros_like(p)
    return y


def replaces_values(self, x, y):
    self.layer.weight.data = self.layer.weight.data.clamp(-1, 1)
    return self.layer(x)


def counts(self, x, y):
    return y * (1 + 0.1 * self.calls)


def own_generator(self, x, y):
    return y + torch.randn(y.shape, generator=torch.Generator().manual_seed(random.SystemRandom().randrange(1 << 30)))


def sets_threads(self, x, y):
    torch.set_num_threads(torch.get_num_threads() + 1)
    return y


def no_recording(self, x, y):
    torch.set_grad_enabled(False)
    return self.layer(x)


@pytest.mark.parametrize(
    ("besides", "said"),
    [
        (drops_gradients, "model replaces the gradient of parameter layer.weight while it is trained"),
        (assigns_gradients, "model replaces the gradient of parameter layer.weight"),
        (replaces_values, r"use a parameter of shape \(3, 4\) that .* has been given other values"),
        (lambda self, x, y: self.layer(x.mul_(2)), "model changes its inputs in place"),
        (counts, "model gives another gradient each time"),
        (own_generator, "model gives another gradient each time"),
        (sets_threads, "change the number of threads"),
        (no_recording, "loss does not depend on the model's parameters"),
        (lambda self, x, y: {"logits": y}, "the default loss cannot be applied to an output that is a dict"),
        (lambda self, x, y: (y, None), "the default loss cannot be applied to an output that is a tuple"),
        (lambda self, x, y: y.sum(), r"the default loss cannot be applied to an output of shape \(\)"),
        (lambda self, x, y: y.to(torch.complex64), "loss"),
        (lambda self, x, y: y / 0 * 0, "are finite, the model's outputs are not"),
        (lambda self, x, y: self.missing, r"model cannot be applied to data.train, inputs of shape \(2, 4\) .*Around"),
        (
            lambda self, x, y: LOOSE[0](x),
            r"model or loss use a parameter of shape \(3(, 4)?,?\) that is not one of the model",
        ),
        (lambda self, x, y: y.detach(), "loss does not depend on the model's parameters"),
        (lambda self, x, y: sys.exit(3), "model cannot be applied to data.train.*SystemExit: 3"),
    ],
)
def test_modules_that_would_not_be_trained_as_promised_are_refused(besides, said):
    threads = torch.get_num_threads()
    with pytest.raises(ConfigError, match=said):
        prepared(lambda: Around(besides))
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    "besides",
    [
        lambda self, x, y: functional.dropout(y, 0.5, self.training),
        lambda self, x, y: y + 0.1 * torch.randn_like(y) + random.random() + np.random.rand(),
        lambda self, x, y: self.layer(x.requires_grad_()),
        lambda self, x, y: y + LOOSE[0](x).detach(),
        lambda self, x, y: self.layer(x.relu_()),
        lambda self, x, y: checkpoint(self.layer, x, use_reentrant=False),
    ],
)
def test_random_numbers_of_the_global_generators_are_taken(besides):
    prepared(lambda: Around(besides))


def test_a_module_that_drops_its_gradients_later_on_ends_the_run():
    job = prepared().job
    model = FlatModel(Around(lambda self, x, y: drops_gradients(self, x, y) if self.calls > 1 else y))
    gradient(model, job, INPUTS, torch.arange(24) % 3)
    with pytest.raises(PisaError, match=r"replaces the gradient of parameter layer\.weight"):
        gradient(model, job, INPUTS, torch.arange(24) % 3)


def test_a_dictionary_of_outputs_suits_a_loss_and_metrics_that_know_it():
    prepared(
        lambda: Around(lambda self, x, y: {"logits": y}),
        loss=lambda o, t: functional.cross_entropy(o["logits"], t),
        metrics=lambda o, t: {"accuracy": hit(o["logits"], t)},
    )


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (
            lambda x, training: x + float(np.random.default_rng().normal()),
            "data.transform gives other numbers each time",
        ),
        (lambda x, training: x[:1], "data.transform returns something of shape"),
        (lambda x, training: x.numpy(), "data.transform returns something that is a ndarray"),
        (lambda x: x, "data.transform cannot be applied to inputs of shape"),
        (lambda x, training: x / 0, "the model's inputs are not"),
        (lambda x, training: x[:, :2] if training else x, "model cannot be trained on a batch of 8 rows, inputs of sh"),
    ],
)
def test_transforms_that_cannot_be_repeated_or_used_are_refused(transform, said):
    with pytest.raises(ConfigError, match=said):
        prepared(transform=transform)


@pytest.mark.parametrize(
    "transform",
    [
        lambda x, training: x + torch.randn_like(x) * training,
        lambda x, training: x * random.random(),
        lambda x, training: x + float(np.random.normal()),
    ],
)
def test_transforms_that_draw_from_global_generators_are_taken(transform):
    prepared(transform=transform)


def test_what_cannot_be_evaluated_on_the_test_data_is_found_at_once():
    table = torch.tensor([0.1, 0.2])

    def weighted(output, target):
        return {"weighted": table[target - 3]}

    few = TensorDataset(INPUTS, torch.arange(24) % 2 + 3)
    with pytest.raises(ConfigError, match=r"metrics cannot be applied to .*IndexError"):
        prepared(
            lambda: nn.Linear(4, 6), train=few, test=TensorDataset(INPUTS, torch.full((24,), 5)), **measuring(weighted)
        )


def test_a_single_row_that_batchnorm_refuses_is_a_matter_of_the_batch():
    def make():
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))

    for sizes in ({"batch_size": 1}, {"micro_batch_size": 1}, {"partition": IID(24)}):
        with pytest.raises(
            ConfigError, match=r"a batch of 1 row, .*; use larger batches \(batch_size, micro_batch_size"
        ):
            prepared(make, **sizes)


def test_methods_that_ask_more_of_a_model_try_it():
    def make():  # torch.autograd.grad refuses this kind of checkpoint
        return Around(lambda self, x, y: checkpoint(self.layer, x.requires_grad_(), use_reentrant=True))

    prepared(make)
    with pytest.raises(ConfigError, match="preconditioner needs second derivatives"):
        prepared(make, algorithm=PISA(sigma=1.0, rho=1.0, preconditioner=HessianDiagonal()))
    prepared(algorithm=PISA(sigma=1.0, rho=1.0, preconditioner=HessianDiagonal()))
    prepared(algorithm=PISA(sigma=1.0, rho=1.0, preconditioner=EmpiricalFisher()))
    with pytest.raises(ConfigError, match=r"algorithm MOON compares what enters the last nn\.Linear"):
        prepared(lambda: nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 3, 1), nn.Flatten()), algorithm=MOON(lr=1))


def test_the_process_is_left_as_it_was():
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    torch.set_default_dtype(torch.float64)
    try:
        job = prepared(lambda: Around(lambda self, x, y: functional.dropout(y) + random.random())).job
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    assert job.build_model().parameters.dtype == torch.float32


def test_the_default_method_says_what_is_wrong_with_a_model_too():
    with pytest.raises(ConfigError, match="model: the function returned nothing, but it must return"):
        default_method(lambda: None)
