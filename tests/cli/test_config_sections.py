"""What the sections of the configuration file build."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from config_files import Load

from pisa_ray.algorithm import (
    MIFA,
    MOON,
    NSISA,
    PISA,
    SISA,
    SISAD,
    AdaGrad,
    Adam,
    Auto,
    EmpiricalFisher,
    FedAdam,
    FedAvg,
    FedNova,
    FedProx,
    FedYogi,
    FisherDiagonal,
    GaussNewton,
    Groups,
    Hessian,
    HessianDiagonal,
    Identity,
    Instantaneous,
    RMSProp,
    Scaffold,
    SyncOptimizer,
)
from pisa_ray.data import (
    IID,
    ByColumn,
    ByFeature,
    Dirichlet,
    Distorted,
    FeatureNoise,
    Indices,
    LabelSkew,
    Noise,
    QuantitySkew,
    Recolour,
    Rotate,
    ShiftLabels,
)
from pisa_ray.errors import ConfigError
from pisa_ray.named import imported
from pisa_ray.schedulers import (
    Geometric,
    LagrangianDescent,
    Matched,
    OnlineK0,
    Plateau,
    ResidualBalancing,
    Shape,
    Trapezoid,
)
from pisa_ray.trainer.start import settled

MOMENTUM = {"momentum": 0.9}


@pytest.mark.parametrize(
    ("section", "built"),
    [
        ("{kind: pisa}", PISA()),
        ("{kind: pisa, sigma: 2, rho: 3, lambda: 0.1}", PISA(sigma=2, rho=3, lam=0.1)),
        ("{kind: sisa}", SISA()),
        ("{kind: sisa, second_moment: rmsprop, beta: 0.9}", SISA(second_moment=RMSProp(0.9))),
        ("{kind: sisa, second_moment: adagrad, eps: 1e-6}", SISA(second_moment=AdaGrad(), eps=1e-6)),
        ("{kind: nsisa}", NSISA()),
        ("{kind: nsisa, mu: 0.5, nesterov: false, steps: 3}", NSISA(mu=0.5, nesterov=False, steps=3)),
        ("{kind: nsisa, matrix_moment: adam, perturbation: 0}", NSISA(matrix_moment=Adam(), perturbation=0.0)),
        ("{kind: nsisa, matrix_moment: instantaneous}", NSISA(matrix_moment=Instantaneous())),
        ("{kind: nsisa, rest: paper, precision: float32}", NSISA(rest=None, precision="float32")),
        ("{kind: nsisa, rest: sisa}", NSISA(rest=SISA())),
        ("{kind: nsisa, rest: {kind: sisa_d, sigma: 30, lambda: 0.1}}", NSISA(rest=SISAD(sigma=30, lam=0.1))),
        (
            "{groups: {'a.*': frozen, matrices: nsisa, rest: {kind: pisa, sigma: 2}}, local_steps: 2}",
            Groups(groups={"a.*": None, "matrices": NSISA(), "rest": PISA(sigma=2)}, local_steps=2),
        ),
        ("{kind: grouped, groups: {rest: sisa}, reset_duals: true}", Groups(groups={"rest": SISA()}, reset_duals=True)),
        ("{kind: sisa_d}", SISAD()),
        ("{kind: sisa_d, sigma: auto, rho: 7, eps: auto}", SISAD(rho=7)),
        ("{kind: sisa, sigma: {hint: 3}, rho: {hint: 4}}", SISA(sigma=Auto(3), rho=Auto(4))),
        ("{kind: sisa_d, sigma: 1, rho: 2, beta: 0.5, eps: 1e-3}", SISAD(sigma=1, rho=2, beta=0.5, eps=1e-3)),
        ("{kind: pisa, reset_duals: true}", PISA(reset_duals=True)),
        ("{kind: pisa, local_steps: 2}", PISA(local_steps=2)),
        ("{kind: sisa, local_steps: 3}", SISA(local_steps=3)),
        ("{kind: nsisa, local_steps: 4}", NSISA(local_steps=4)),
        ("{kind: sisa_d, local_steps: 5}", SISAD(local_steps=5)),
        ("{kind: sync}", SyncOptimizer()),
        ("{kind: sync, optimizer: SGD, options: {momentum: 0.9}}", SyncOptimizer(optimizer="SGD", options=MOMENTUM)),
        ("{kind: sync, remember: true, lr: 0.1}", SyncOptimizer(remember=True, lr=0.1)),
        ("{kind: fedavg}", FedAvg()),
        ("{kind: fedavg, lr: 0.1, epochs: 1, momentum: 0.9}", FedAvg(lr=0.1, epochs=1, momentum=0.9)),
        ("{kind: fedavg, optimizer: rmsprop, options: {momentum: 0.9}}", FedAvg(optimizer="rmsprop", options=MOMENTUM)),
        ("{kind: fedprox, mu: 0.1}", FedProx(mu=0.1)),
        ("{kind: fednova, steps: 3}", FedNova(steps=3)),
        ("{kind: scaffold, server_lr: 0.5}", Scaffold(server_lr=0.5)),
        ("{kind: moon, mu: 5, temperature: 1}", MOON(mu=5, temperature=1)),
        ("{kind: fedadam, beta1: 0, beta2: 0.9, tau: 0.1}", FedAdam(beta1=0, beta2=0.9, tau=0.1)),
        ("{kind: fedyogi}", FedYogi()),
        ("{kind: mifa}", MIFA()),
    ],
)
def test_algorithms(read: Load, section: str, built: Any) -> None:
    assert read(f"algorithm={section}").algorithm == built


@pytest.mark.parametrize(
    ("section", "built"),
    [
        ("identity", Identity()),
        ("hessian", Hessian()),
        ("gauss_newton", GaussNewton()),
        ("empirical_fisher", EmpiricalFisher()),
        ("fisher_diagonal", FisherDiagonal()),
        ("hessian_diagonal", HessianDiagonal()),
        ("{kind: fisher_diagonal, eta: 3}", FisherDiagonal(3.0)),
        ("{kind: hessian_diagonal, probes: 2, eta: null}", HessianDiagonal(2, math.inf)),
    ],
)
def test_preconditioners_by_name_or_section(read: Load, section: str, built: Any) -> None:
    config = read("algorithm.kind=pisa", f"algorithm.preconditioner={section}")

    assert config.algorithm == PISA(preconditioner=built)


@pytest.mark.parametrize(
    ("section", "built"),
    [
        ("{kind: iid, shards: 3}", IID(3)),
        ("{kind: labels_per_shard, shards: 3}", LabelSkew(3, 1)),
        ("{kind: labels_per_shard, shards: 3, labels: 2}", LabelSkew(3, 2)),
        ("{kind: dirichlet, shards: 3}", Dirichlet(3, 0.5, 10)),
        ("{kind: dirichlet, shards: 3, alpha: 1e-1, min_rows: 1}", Dirichlet(3, 0.1, 1)),
        ("{kind: quantity, shards: 3}", QuantitySkew(3, 0.5, 10)),
        ("{kind: by_column, column: site}", ByColumn("site")),
        ("{kind: by_feature, shards: 3}", ByFeature(3)),
        ("{kind: by_feature, shards: 3, column: age}", ByFeature(3, "age")),
        ("{kind: feature_noise, shards: 3, level: 0.2}", FeatureNoise(3, 0.2)),
        ("{kind: indices, shards: [[0, 1], [2]]}", Indices(((0, 1), (2,)))),
        ("{kind: iid, shards: 3, distort: null}", IID(3)),
        ("{kind: iid, shards: 3, distort: {kind: rotate, step: 36}}", Distorted(IID(3), Rotate(36))),
        (
            "{kind: by_column, column: site, distort: {kind: noise, level: 0.1, shards: [1, 2]}}",
            Distorted(ByColumn("site"), Noise(0.1, shards=(1, 2))),
        ),
        ("{kind: quantity, shards: 3, distort: {kind: recolour}}", Distorted(QuantitySkew(3), Recolour())),
        (
            "{kind: labels_per_shard, shards: 3, distort: {kind: shift_labels}}",
            Distorted(LabelSkew(3), ShiftLabels(1.0, shards=(0,))),
        ),
        (
            "{kind: indices, shards: [[0]], distort: {kind: shift_labels, share: 0.5, shards: null}}",
            Distorted(Indices(((0,),)), ShiftLabels(0.5, shards=None)),
        ),
    ],
)
def test_partitions(read: Load, section: str, built: Any) -> None:
    assert read(f"partition={section}").partition == built


def test_sigma_schedules(read: Load) -> None:
    assert read("sigma_schedule.kind=geometric").sigma_schedule == Geometric()
    assert read("sigma_schedule={kind: geometric, gamma: 0.5, k0: 3}").sigma_schedule == Geometric(0.5, 3)
    assert read("sigma_schedule={kind: matched, growth: 8}").sigma_schedule == Matched(8)
    cosine = "sigma_schedule={kind: shape, name: CosineAnnealingLR, options: {T_max: 9}, warmup: 2}"
    assert read(cosine).sigma_schedule == Shape("CosineAnnealingLR", {"T_max": 9}, 2)
    assert read("sigma_schedule={kind: trapezoid, cooldown: 0.5}").sigma_schedule == Trapezoid(cooldown=0.5)
    assert read("sigma_schedule.kind=residual_balancing").sigma_schedule == ResidualBalancing()
    assert read("sigma_schedule.kind=lagrangian_descent").sigma_schedule == LagrangianDescent()
    assert read("sigma_schedule={kind: online_k0, k0: 5}").sigma_schedule == OnlineK0(k0=5)
    assert read("sigma_schedule={kind: plateau, patience: 5}").sigma_schedule == Plateau(patience=5)


@pytest.mark.parametrize(
    ("section", "why"),
    [
        (
            "{kind: shape, name: SGD}",
            "sigma_schedule.name is 'SGD', but it must be a class of torch.optim.lr_scheduler.",
        ),
        ("{kind: shape, name: StepLR}", "sigma_schedule.options do not fit StepLR"),
        ("{kind: shape, name: ReduceLROnPlateau}", "use Plateau."),
        (
            "{kind: trapezoid, warmup: 0.6, cooldown: 0.5}",
            "sigma_schedule.warmup is 0.6 and sigma_schedule.cooldown 0.5, but they must",
        ),
    ],
)
def test_shapes_that_are_none(read: Load, section: str, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        read(f"sigma_schedule={section}")


@pytest.mark.parametrize("kind", ["matched", "trapezoid", "online_k0"])
def test_what_is_planned_over_the_rounds_is_written_down(read: Load, kind: str) -> None:
    config = read(f"sigma_schedule.kind={kind}", "rounds=70")
    config = settled(config)
    assert config.written()["sigma_schedule"]["rounds"] == 70


def test_data_section_builds(read: Load, tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").touch()
    section = "{train: rows.parquet, input: [a, b], label: y, scale: 2, mean: [1, 2], std: [3, 4], validation: 0.1}"

    data = read(f"data={section}").data

    assert dataclasses.asdict(data) == {
        "train": str(tmp_path / "rows.parquet"),
        "test": None,
        "input": ("a", "b"),
        "label": "y",
        "validation": 0.1,
        "scale": 2.0,
        "mean": (1.0, 2.0),
        "std": (3.0, 4.0),
        "transform": None,
        "dtype": None,
    }
    digits = read().data
    assert (digits.train, digits.test) == ("digits", "digits:test")
    assert read("data.transform=torch:relu").data.open().preprocess.transform(torch.tensor(-1.0)) == 0


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ("{}", "data needs either train (a Parquet file or folder) or dataset: digits, and not both."),
        ("{dataset: digits, train: a.parquet}", "data needs either train"),
        ("{dataset: digits, test: a.parquet}", "data.test is given, but data.dataset digits has its own: leave it out"),
        ("{dataset: digits, label: y}", "data.label is given, but"),
        ("{dataset: digits, transform: nowhere:f}", "data.transform is 'nowhere:f', but it must be 'package.module:fu"),
        ("{dataset: digits, validation: rows.parquet}", "data.validation is '"),
    ],
)
def test_data_that_cannot_be_used(read: Load, section: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}"):
        read(f"data={section}", look=True).data.open()


@pytest.mark.parametrize(
    ("reference", "rest"),
    [
        ("nowhere:f", "must be 'package.module:function' (ModuleNotFoundError: "),
        ("torch", "must be 'package.module:function' ("),
        ("torch:", "must be 'package.module:function' ("),
        (":f", "must be 'package.module:function' (ValueError: "),
        ("torch:nothing", "must be 'package.module:function' (AttributeError: "),
        ("torch:pi", "that is a float: name a function."),
    ],
)
def test_functions_that_are_not_there(reference: str, rest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        imported(reference, "model.factory")
    assert str(caught.value).startswith(f"model.factory is {reference!r}, but ")
    assert rest in str(caught.value)
