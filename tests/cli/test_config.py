"""The configuration file: defaults, numbers, overrides and paths."""

from pathlib import Path

import pytest
import yaml
from config_files import SMALLEST, Load, refused

from pisa_ray.algorithm import SISA, SISAD
from pisa_ray.cli.config import load
from pisa_ray.schedulers import Constant, Trapezoid
from pisa_ray.trainer.settings import Scaling
from pisa_ray.trainer.start import settled

# What is left out


def test_the_smallest_file_has_every_default(read: Load) -> None:
    config = read()

    assert config.written() == {
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
        "resources_per_worker": {},
        "accelerator": None,
        "spread_workers": False,
        "look_every": 1.0,
        "patience": 300.0,
        "frozen_after": 30.0,
        "max_failures": -1,
        "stop": {"seconds": None, "test_accuracy": None},
        "exact": True,
        "checkpoint": {"every": 50, "keep": 2, "best_by": None, "order": "max", "storage": None},
        "ray": {"address": None},
    }
    config = settled(config)
    assert config.algorithm == SISAD()
    assert config.sigma_schedule == Trapezoid(rounds=200)


def test_the_method_follows_the_model(read: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models_of_configs.py").write_text(
        "from torch import nn\n"
        "def transformer(width=4):\n    return nn.Sequential(nn.Embedding(3, width), nn.LayerNorm(width))\n"
        "def plain():\n    return nn.Linear(3, 4)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    factory = "model={factory: 'models_of_configs:%s'}"
    for settings, kind in (
        ([factory % "transformer", "model.args={width: 8}"], "nsisa"),
        ([factory % "plain"], "sisa_d"),
        ([factory % "transformer", "algorithm.kind=sisa_d"], "sisa_d"),
        (["algorithm.kind=auto"], "sisa_d"),
    ):
        config = read(*settings)
        config = settled(config)
        assert config.algorithm.kind == kind


def test_a_number_for_sigma_means_a_constant_one(read: Load) -> None:
    config = read("algorithm={kind: sisa, sigma: 2}")
    config = settled(config)
    assert config.sigma_schedule == Constant()


@pytest.mark.parametrize("section", ["algorithm", "sigma_schedule", "stop", "checkpoint", "ray"])
def test_an_empty_section_means_its_defaults(read: Load, section: str) -> None:
    assert read(text=f"{SMALLEST}{section}:\n  # all commented out\n") == read()
    assert read(f"{section}=null") == read()


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
    assert read(f"name={text}").run.name == text


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
    assert (config.stop_seconds, config.clip_norm) == (100, None)
    assert config.scaling == Scaling(1, 4)
    assert (config.batch_size, config.run.name, config.rounds) == ("full", "a=b", 6)


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
    written.write_text(yaml.safe_dump(config.written(), sort_keys=False))

    assert load(written).written() == config.written()
