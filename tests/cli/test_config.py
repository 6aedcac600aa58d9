"""The configuration file: defaults, numbers, overrides, and one sentence for everything that is wrong."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

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
from pisa_ray.cli.config import Config, Workers, load, note_planned_rounds, plain
from pisa_ray.cli.words import spoken
from pisa_ray.data import (
    IID,
    ByColumn,
    ByFeature,
    Dirichlet,
    Distorted,
    Distortion,
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
from pisa_ray.options import Kind, Options, annotated, members
from pisa_ray.options import keys as options_keys
from pisa_ray.schedulers import (
    Constant,
    Geometric,
    LagrangianDescent,
    Matched,
    OnlineK0,
    Plateau,
    ResidualBalancing,
    Shape,
    Trapezoid,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
MOMENTUM = {"momentum": 0.9}
SMALLEST = "data: {dataset: digits}\npartition: {kind: iid, shards: 2}\nmodel: {kind: mlp}\n"

Load = Callable[..., Config]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    """Loads settings on top of the smallest file, or another file's text."""

    def load_text(*settings: str, text: str = SMALLEST, look: bool = False) -> Config:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return load(path, list(settings), look=look)

    return load_text


def refused(read: Load, *settings: str, text: str = SMALLEST) -> str:
    """The sentence that refuses some settings."""
    with pytest.raises(ConfigError) as caught:
        read(*settings, text=text)
    sentence = spoken(str(caught.value))
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert not re.search(r"pydantic|Section|\bvalid (integer|number|list|string|dictionary)|extract|parse", sentence)
    return sentence


# What is left out


def test_the_smallest_file_has_every_default(read: Load) -> None:
    config = read()

    assert plain(config) == {
        "name": None,
        "seed": 0,
        "data": dict.fromkeys(
            ("train", "test", "input", "label", "validation", "scale", "mean", "std", "transform", "dtype"), None
        )
        | {"dataset": "digits"},
        "partition": {"kind": "iid", "shards": 2},
        "model": {"kind": "mlp", "hidden": None, "factory": None, "args": {}, "weights": None},
        "algorithm": {"kind": "auto"},
        "sigma_schedule": None,
        "loss": None,
        "metrics": None,
        "rounds": 200,
        "batch_size": 64,
        "micro_batch_size": None,
        "clip_norm": None,
        "autocast": False,
        "shard_weights": "size",
        "participation": 1.0,
        "asynchronous": None,
        "pin_to": None,
        "robust": None,
        "evaluate_every": 20,
        "workers": 1,
        "threads_per_worker": 1,
        "compiled": None,
        "cpus_per_worker": 1.0,
        "gpus_per_worker": 0.0,
        "worker_labels": {},
        "patience": 300.0,
        "frozen_after": 30.0,
        "max_failures": -1,
        "stop": {"seconds": None, "test_accuracy": None},
        "exact": True,
        "checkpoint": {"every": 50, "keep": 2, "best_by": None, "order": "max", "storage": None},
        "ray": {"address": None},
    }
    note_planned_rounds(config)
    assert config.algorithm == SISAD()
    assert config.sigma_schedule == Trapezoid(rounds=200)


def test_the_method_follows_the_model(read: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models_of_test_config.py").write_text(
        "from torch import nn\n"
        "def transformer(width=4):\n    return nn.Sequential(nn.Embedding(3, width), nn.LayerNorm(width))\n"
        "def plain():\n    return nn.Linear(3, 4)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    factory = "model={factory: 'models_of_test_config:%s'}"
    for settings, kind in (
        ([factory % "transformer", "model.args={width: 8}"], "nsisa"),
        ([factory % "plain"], "sisa_d"),
        ([factory % "transformer", "algorithm.kind=sisa_d"], "sisa_d"),
        (["algorithm.kind=auto"], "sisa_d"),
    ):
        config = read(*settings)
        note_planned_rounds(config)
        assert config.algorithm.kind == kind


def test_a_number_for_sigma_means_a_constant_one(read: Load) -> None:
    config = read("algorithm={kind: sisa, sigma: 2}")
    note_planned_rounds(config)
    assert config.sigma_schedule == Constant()


@pytest.mark.parametrize("section", ["algorithm", "sigma_schedule", "stop", "checkpoint", "ray"])
def test_an_empty_section_means_its_defaults(read: Load, section: str) -> None:
    assert read(text=f"{SMALLEST}{section}:\n  # all commented out\n") == read()
    assert read(f"{section}=null") == read()


# What is built


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
    note_planned_rounds(config)
    assert plain(config)["sigma_schedule"]["rounds"] == 70


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


# Numbers, overrides, paths


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-3", 1e-3), ("1E+5", 1e5), (".5e2", 50), ("5.e1", 50), ("1e3", 1000), ("+2e0", 2), ("0.25", 0.25), ("7", 7)],
)
def test_every_way_to_write_a_number(read: Load, text: str, number: float) -> None:
    file = f"{SMALLEST}clip_norm: {text}\nalgorithm: {{kind: sisa, sigma: {text}}}\n"

    assert read(text=file).clip_norm == number
    assert read(text=file).algorithm.sigma == number
    assert read(f"clip_norm={text}").clip_norm == number


def test_whole_numbers_may_be_written_as_powers(read: Load) -> None:
    rounds = read("rounds=1e3").rounds

    assert rounds == 1000
    assert isinstance(rounds, int)


@pytest.mark.parametrize("text", ["1e-3x", "e5", "v1e5", "1e", "a-1"])
def test_other_text_stays_text(read: Load, text: str) -> None:
    assert read(f"name={text}").name == text


def test_settings_override_and_add_keys(read: Load) -> None:
    text = f"{SMALLEST}stop:\nclip_norm: 3\nalgorithm: {{kind: sisa, sigma: 5}}\n"

    config = read(
        "algorithm.rho=7",
        "model.hidden=[32, 16]",
        "model.args={a: [1, 2]}",
        "stop.seconds=1e2",
        "clip_norm=null",
        "workers={min: 1, max: 4}",
        "batch_size=full",
        "name=a=b",
        "rounds=5",
        "rounds=6",
        text=text,
    )

    assert config.algorithm == SISA(sigma=5, rho=7)
    assert (config.model.hidden, config.model.args) == ((32, 16), {"a": [1, 2]})
    assert (config.stop.seconds, config.clip_norm) == (100, None)
    assert config.workers == Workers(min=1, max=4)
    assert (config.batch_size, config.name, config.rounds) == ("full", "a=b", 6)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("rounds", "--set rounds is not a setting: write --set key.path=value."),
        ("=5", "--set =5 is not a setting: write"),
        ("stop..seconds=5", "--set stop..seconds=5 is not a setting: write"),
        ("partition.shards.more=1", "--set partition.shards.more: partition.shards is 2 and has no keys of its own."),
        ("model.hidden=[1", "--set model.hidden=[1: the value is not valid YAML (expected ',' or ']', but got"),
    ],
)
def test_overrides_that_are_none(read: Load, setting: str, sentence: str) -> None:
    assert refused(read, setting).startswith(sentence)


def test_data_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    path = tmp_path / "conf" / "config.yaml"
    path.write_text(
        "data: {train: ../rows/train.parquet, test: 's3://bucket/test', validation: val.parquet}\n"
        "partition: {kind: iid, shards: 2}\nmodel: {kind: mlp, weights: ../old.safetensors}\n"
    )

    config = load(path, ["data.label=y"])

    assert config.data.train == str(tmp_path / "rows" / "train.parquet")
    assert config.data.test == "s3://bucket/test"
    assert config.data.validation == str(tmp_path / "conf" / "val.parquet")
    assert config.model.weights == str(tmp_path / "old.safetensors")
    assert load(path, [f"data.train={tmp_path / 'x'}"]).data.train == str(tmp_path / "x")


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("algorithm={kind: pisa, preconditioner: fisher_diagonal}",),
        ("algorithm={kind: nsisa, lambda: 1e-6}", "sigma_schedule.kind=geometric", "workers={max: 3}"),
        ("batch_size=full", "autocast=bfloat16", "clip_norm=1e-12", "checkpoint={every: null, keep: null}"),
        (
            "partition={kind: indices, shards: [[0], [1, 2]]}",
            "data={train: a, test: 'gs://b', input: [c, d]}",
        ),
        ("partition.distort={kind: shift_labels, share: 0.3, shards: [0, 1]}",),
        ("partition={kind: by_feature, shards: 2, distort: {kind: rotate, step: 1e1}}",),
        ("model={factory: 'a.b:c', args: {x: 1e-7, y: [1, {z: true}]}, weights: w.safetensors}", "name=1e-3x"),
    ],
)
def test_the_written_file_loads_to_the_same(read: Load, tmp_path: Path, settings: tuple[str, ...]) -> None:
    config = read(*settings)
    written = tmp_path / "elsewhere" / "config.yaml"
    written.parent.mkdir()
    written.write_text(yaml.safe_dump(plain(config), sort_keys=False))

    assert plain(load(written)) == plain(config)


# What is wrong


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("rouns=5", "rouns is not a setting: the nearest one is rounds."),
        ("zzz=5", "zzz is not a setting: use one of name, seed, data, partition,"),
        ("7=5", "7 is not a setting: use one of name,"),
        ("data.lable=y", "data.lable is not a setting: the nearest one is label."),
        ("partition.shard=2", "partition.shard is not a setting: the nearest one is shards."),
        ("partition.labels=2", "partition.labels is not a setting: use one of shards, kind, distort."),
        (
            "partition.distort={kind: rotate, stp: 3}",
            "partition.distort.stp is not a setting: the nearest one is step.",
        ),
        (
            "partition.distort={kind: recolour, step: 3}",
            "partition.distort.step is not a setting: use one of shards, kind.",
        ),
        ("model.kin=mlp", "model.kin is not a setting: the nearest one is kind."),
        ("algorithm={kind: sisa, lam: 1}", "algorithm.lam is not a setting: the nearest one is lambda."),
        (
            "algorithm={kind: sisa, mu: 1}",
            "algorithm.mu is not a setting: use one of sigma, rho, lambda, reset_duals, local_steps, second_moment,",
        ),
        (
            "algorithm={kind: pisa, preconditioner: {kind: hessian_diagonal, probe: 1}}",
            "algorithm.preconditioner.probe",
        ),
        (
            "algorithm={kind: pisa, preconditioner: {kind: identity, x: 1}}",
            "algorithm.preconditioner.x is not a setting: ",
        ),
        (
            "sigma_schedule={kind: geometric, gama: 1}",
            "sigma_schedule.gama is not a setting: the nearest one is",
        ),
        ("sigma_schedule={kind: constant, gamma: 1}", "sigma_schedule.gamma is not a setting: use kind."),
        ("workers={mn: 1, max: 2}", "workers.mn is not a setting: the nearest one is min."),
        ("stop.second=1", "stop.second is not a setting: the nearest one is seconds."),
        ("checkpoint.evry=1", "checkpoint.evry is not a setting: the nearest one is every."),
        ("ray.adress=auto", "ray.adress is not a setting: the nearest one is address."),
    ],
)
def test_unknown_keys(read: Load, setting: str, sentence: str) -> None:
    assert refused(read, setting).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "data is missing and has no default: add it, such as data: {dataset: digits}."),
        (
            "data: {dataset: digits}",
            "partition is missing and has no default: add it, such as partition: {kind:",
        ),
        (
            SMALLEST.replace("model: {kind: mlp}", ""),
            "model is missing and has no default: add it, such as model: {",
        ),
        (SMALLEST.replace("model:", "modell:"), "modell is not a setting: the nearest one is model."),
        (SMALLEST.replace("shards", "shard"), "partition.shard is not a setting: the nearest one is shards."),
        (SMALLEST.replace(", shards: 2", ""), "partition.shards is missing and has no default: add it."),
        (SMALLEST.replace("iid", "feature_noise"), "partition.level is missing and has no default: add it."),
        (SMALLEST + "workers: {min: 1}", "workers.max is missing and has no default: add it."),
        # kind
        (
            SMALLEST.replace("kind: iid, ", ""),
            "partition.kind is missing: use one of by_column, by_feature,",
        ),
        (SMALLEST.replace("iid", "idd"), "partition.kind is 'idd', but it must be one of by_column, by_feature,"),
        (
            SMALLEST.replace("shards: 2", "shards: 2, distort: {step: 3}"),
            "partition.distort.kind is missing: use one of noise, recolour, rotate, shift_labels",
        ),
        (
            SMALLEST.replace("shards: 2", "shards: 2, distort: {kind: spin, step: 3}"),
            "partition.distort.kind is 'spin', but it must be one of noise, recolour, rotate, shift_labels",
        ),
        (
            SMALLEST.replace("shards: 2", "shards: 2, distort: {kind: rotate}"),
            "partition.distort.step is missing and has no default: add it.",
        ),
        (SMALLEST.replace("mlp", "lenett"), "model.kind is 'lenett', but it must be one of mlp, lenet, resnet18,"),
        (
            SMALLEST + "algorithm: {sigma: 1}",
            "algorithm.kind is missing: use one of fedadam, fedavg, ",
        ),
        (
            SMALLEST + "algorithm: {kind: adam}",
            "algorithm.kind is 'adam', but it must be one of fedadam, fedavg,",
        ),
        (SMALLEST + "sigma_schedule: {k0: 1}", "sigma_schedule.kind is missing: use one of constant, geometric,"),
        (
            SMALLEST + "sigma_schedule: {kind: x}",
            "sigma_schedule.kind is 'x', but it must be one of constant,",
        ),
        (
            SMALLEST + "algorithm: {kind: pisa, preconditioner: {probes: 1}}",
            "algorithm.preconditioner.kind is missing: use one of empirical_fisher, fisher_diagonal,",
        ),
        (
            SMALLEST + "algorithm: {kind: pisa, preconditioner: {kind: x}}",
            "algorithm.preconditioner.kind is 'x', but it must be one of empirical_fisher, fisher_diagonal, ",
        ),
        (
            SMALLEST + "algorithm: {kind: pisa, preconditioner: x}",
            "algorithm.preconditioner.kind is 'x', but it must be one of empirical_fisher, fisher_diagonal, ",
        ),
    ],
)
def test_missing_keys_and_kinds(read: Load, text: str, sentence: str) -> None:
    assert refused(read, text=text).startswith(sentence)


def test_long_values_are_cut(read: Load) -> None:
    assert len(refused(read, f"rounds={list(range(1000))}")) < 120


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no settings: it should be a list of `key: value` lines."),
        ("- a", "holds no settings"),
        ("data: {dataset: digits", "is not valid YAML: expected ',' or '}', but got '<stream end>' in line 1."),
        ("name: a\nname: b", "is not valid YAML: the key name is there twice in line 2."),
        ("a: 1\n---\nb: 2", "is not valid YAML: "),
        ("name: !!python/object:os.system {}", "is not valid YAML: could not determine a constructor"),
    ],
)
def test_files_that_are_no_configuration(read: Load, tmp_path: Path, text: str, sentence: str) -> None:
    assert refused(read, text=text).startswith(f"{tmp_path / 'config.yaml'} {sentence}")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\): give the path of a YAML"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        load(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ConfigError, match=r"is not text in UTF-8"):
        load(tmp_path / "binary.yaml")


# The document


#: Keys that hold sections as algorithm is.
AS_ALGORITHM = {"algorithm.rest", "algorithm.groups"}


def keys(options: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a section, dotted."""
    if issubclass(options, Kind) and not hasattr(options, "kind"):
        yield from dict.fromkeys(key for one in options.known().values() for key in keys(one, prefix))
        return
    for key in options.beside:
        yield f"{prefix}{key}"
        yield from keys(Distortion, f"{prefix}{key}.") if key == "distort" else ()
    for key, name in options_keys(options).items():
        yield f"{prefix}{key}"
        for member in members(annotated(options)[name]):
            if isinstance(member, type) and issubclass(member, Options) and f"{prefix}{key}" not in AS_ALGORITHM:
                yield from keys(member, f"{prefix}{key}.")


def test_the_document_has_every_key_and_no_other() -> None:
    text = DOCUMENT.read_text().partition("## The configuration file")[2].partition("## The run directory")[0]
    documented = re.findall(r"^\| `([a-z0-9_.]+)` \| .* \| .* \| .* \|$", text, re.MULTILINE)

    assert set(documented) == set(keys(Config))
    assert len(documented) == len(set(documented))
