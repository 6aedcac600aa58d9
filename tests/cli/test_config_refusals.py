"""One sentence for everything that is wrong with a configuration file: keys, kinds, and what is no file of settings."""

from pathlib import Path

import pytest
from config_files import SMALLEST, Load, refused

from pisa_ray.cli.config import load
from pisa_ray.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("rouns=5", "rouns is not a setting: the nearest one is rounds."),
        ("stop_seconds=5", "stop_seconds is not a setting: the nearest one is stop.seconds."),
        ("checkpoint_every=5", "checkpoint_every is not a setting: the nearest one is checkpoint.every."),
        ("scaling_config=5", "scaling_config is not a setting: the nearest one is workers."),
        ("evaluate=a", "evaluate is not a setting: the nearest one is metrics."),
        ("sigma=5", "sigma is not a setting: the nearest one is algorithm.sigma."),
        ("zzz=5", "zzz is not a setting: use one of data, partition, model,"),
        ("7=5", "7 is not a setting: use one of data,"),
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
