"""The door of the Python API: numbers of any kind are numbers, and what is of a wrong kind is named in one sentence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

import pisa_ray
from pisa_ray import (
    IID,
    NSISA,
    SISA,
    Adam,
    Asynchronous,
    ConfigError,
    Data,
    Dirichlet,
    Distorted,
    FedAdam,
    FedAvg,
    Geometric,
    Indices,
    LabelSkew,
    Matched,
    Noise,
    OnlineK0,
    PisaTrainer,
    Plateau,
    Rotate,
    Scaling,
    Shape,
    ShiftLabels,
    SyncOptimizer,
    Trapezoid,
    TrimmedMean,
)

ROWS = 40


def table() -> pa.Table:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(ROWS, 3)).astype(np.float32)
    return pa.table({"x": list(inputs), "y": random.integers(0, 2, ROWS)})


def linear() -> nn.Module:
    return nn.Linear(3, 2)


def arguments(path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": linear,
        "data": Data(train=table(), input="x", label="y"),
        "partition": IID(2),
        "algorithm": SISA(sigma=1.0, rho=1.0),
        "rounds": 2,
        "batch_size": 8,
        "scaling_config": 0,
        "run_config": path / "run",
        "progress": False,
        **changes,
    }


def test_a_run_with_numbers_of_numpy_and_torch_is_the_run_with_plain_ones(tmp_path: Path) -> None:
    """Every argument at once: the same weights and the same config.yaml, to the byte."""

    def run(name: str, number: Any, whole: Any, flag: Any) -> tuple[str, str]:
        result = PisaTrainer(
            **arguments(
                tmp_path / name,
                data=Data(
                    train=table(),
                    input="x",
                    label="y",
                    validation=number(0.25),
                    scale=number(2.0),
                    mean=[number(0.5)],
                    std=[number(4.0)],
                ),
                partition=Distorted(LabelSkew(whole(2), whole(1)), Noise(number(0.25), shards=[whole(1)])),
                algorithm=SISA(sigma=number(0.5), rho=number(2.0), second_moment=Adam(number(0.75))),
                sigma_schedule=Geometric(number(0.5), whole(2)),
                rounds=whole(2),
                batch_size=whole(8),
                micro_batch_size=whole(4),
                clip_norm=number(1.0),
                participation=[[whole(0), whole(1)]],
                robust=None,
                seed=whole(3),
                evaluate_every=whole(1),
                checkpoint_every=whole(1),
                stop_seconds=number(1000.0),
                threads_per_worker=whole(1),
                compiled=None,
                scaling_config=whole(0),
                exact=flag(True),
                warn=flag(False),
            )
        ).fit()
        return result.metrics["weights_sha256"], (result.path / "config.yaml").read_text()

    plain = run("plain", float, int, bool)
    assert run("numpy", np.float64, np.int64, np.bool_) == plain
    assert run("float32", np.float32, np.uint8, np.array) == plain
    assert run("torch", torch.tensor, torch.tensor, torch.tensor) == plain


def test_indices_may_be_a_dictionary_of_arrays():
    assert Indices({"lyon": np.array([2, 0]), "bonn": [1]}) == Indices([[2, 0], [1]])


MAKERS = {
    "SISA": lambda n, w: SISA(sigma=n(0.5), rho=n(1.0), lam=n(0.25), eps=n(0.5), local_steps=w(2)),
    "NSISA": lambda n, w: NSISA(sigma=n(0.5), mu=n(0.5), steps=w(3), perturbation=n(0.5)),
    "FedAvg": lambda n, w: FedAvg(lr=n(0.5), steps=w(3), epochs=n(1.5), options={"weight_decay": n(0.5)}),
    "FedAdam": lambda n, w: FedAdam(beta1=n(0.5), tau=n(0.25)),
    "SyncOptimizer": lambda n, w: SyncOptimizer(lr=n(0.5), options={"betas": (n(0.5), n(0.75))}),
    "Matched": lambda n, w: Matched(n(2.0), w(4)),
    "Trapezoid": lambda n, w: Trapezoid(n(0.5), n(0.25), n(2.0), w(8)),
    "Shape": lambda n, w: Shape("StepLR", {"step_size": w(2), "gamma": n(0.5)}, warmup=w(2)),
    "Plateau": lambda n, w: Plateau(factor=n(2.0), every=w(3), patience=w(2), smoothing=n(0.5)),
    "OnlineK0": lambda n, w: OnlineK0(k0=w(5), gamma=n(0.5), rounds=w(100)),
    "Dirichlet": lambda n, w: Dirichlet(w(3), n(0.5), w(2)),
    "Indices": lambda n, w: Indices([np.array([0, 1]), [w(2), w(3)]]),
    "ShiftLabels": lambda n, w: ShiftLabels(n(0.5), shards=[w(1)], classes=w(3)),
    "Rotate": lambda n, w: Rotate(n(36.0)),
    "TrimmedMean": lambda n, w: TrimmedMean(n(0.25)),
    "Asynchronous": lambda n, w: Asynchronous(quorum=n(0.5), staleness=w(3), deadline=n(1.5)),
    "Scaling": lambda n, w: Scaling(w(1), w(2), n(0.5), other={"gold": n(1.0)}, patience=n(2.0)),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("number", "whole"), [(np.float64, np.int32), (torch.tensor, torch.tensor)])
def test_settings_of_numpy_numbers_equal_those_of_plain_ones(name, number, whole):
    plain, other = MAKERS[name](float, int), MAKERS[name](number, whole)
    assert other == plain
    assert other.written() == plain.written()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"rounds": 2.5}, "rounds is 2.5, but it must be a whole number of at least 1 and"),
    ({"rounds": None}, "rounds is None, but it must be a whole number"),
    ({"rounds": True}, "rounds is True, but it must be a whole number"),
    ({"rounds": 10**30}, "rounds is 1000000000000000000000000000000, but it must be below 2**63."),
    ({"batch_size": 2.5}, "batch_size is 2.5, but it must be a whole number of at least 1 or 'full' or None."),
    ({"batch_size": 0}, "batch_size is 0, but it must be a whole number of at least 1 or 'full' or None."),
    ({"seed": None}, "seed is None, but it must be a whole number of at least 0."),
    ({"seed": -1}, "seed is -1, but it must be a whole number of at least 0."),
    ({"clip_norm": math.nan}, "clip_norm is nan, but it must be a number above 0 or None."),
    ({"clip_norm": torch.ones(2)}, "clip_norm is a Tensor, but it must be a number above 0 or None."),
    ({"algorithm": "nsisa"}, "algorithm is 'nsisa', but it must be a method such as SISA() or None."),
    ({"algorithm": SISA}, "algorithm is the class SISA, but it must be a method such as SISA() or None."),
    ({"algorithm": Geometric()}, "algorithm is a Geometric, but it must be a method such as SISA() or None."),
    ({"algorithm": torch.optim.SGD([torch.zeros(1)], 0.1)}, "algorithm is a SGD, but it must be a method"),
    ({"partition": "iid"}, "partition is 'iid', but it must be a partition such as IID(shards=10)."),
    ({"partition": None}, "partition is None, but it must be a partition such as IID(shards=10)."),
    ({"partition": 10}, "partition is 10, but it must be a partition such as IID(shards=10)."),
    ({"partition": IID}, "partition is the class IID, but it must be a partition such as IID(shards=10)."),
    ({"sigma_schedule": 3}, "sigma_schedule is 3, but it must be a schedule such as Geometric("),
    ({"sigma_schedule": "constant"}, "sigma_schedule is 'constant', but it must be a schedule"),
    ({"sigma_schedule": SISA()}, "sigma_schedule is a SISA, but it must be a schedule"),
    ({"model": None}, "model is None, but it must be a torch.nn.Module or a function."),
    ({"model": "lenet"}, "model is 'lenet', but it must be a torch.nn.Module or a function."),
    ({"data": "digits"}, "data is 'digits', but it must be data such as Data("),
    ({"data": table()}, "data is a Table, but it must be data such as Data("),
    ({"loss": 5}, "loss is 5, but it must be a text or a function or None."),
    ({"metrics": 1}, "metrics is 1, but it must be a text or a function or a list of them or None."),
    ({"participation": "half"}, "participation is 'half', but it must be a number above 0 and at most 1 or a list"),
    ({"participation": [[0, "1"]]}, "participation[0][1] is '1', but it must be a whole number of at least 0."),
    ({"participation": 1.5}, "participation is 1.5, but it must be a number above 0 and at most 1 or a list"),
    ({"asynchronous": True}, "asynchronous is True, but it must be a rule such as Asynchronous("),
    ({"robust": "median"}, "robust is 'median', but it must be TrimmedMean(), Median(), Clip() or None."),
    ({"robust": TrimmedMean}, "robust is the class TrimmedMean, but it must be TrimmedMean(), Median()"),
    ({"pin_to": ["lyon"]}, "pin_to is ['lyon'], but it must be a dictionary such as {'site':"),
    ({"pin_to": {"site": 3}}, "pin_to.site is 3, but it must be a list"),
    ({"shard_weights": "equal"}, "shard_weights is 'equal', but it must be 'size' or 'uniform'."),
    ({"autocast": "float16"}, "autocast is 'float16', but it must be True or False or 'bfloat16'."),
    ({"resume": 1}, "resume is 1, but it must be True or False."),
    ({"threads_per_worker": 10**6}, "threads_per_worker is 1000000, but it must be a whole number of at least 1 and"),
    ({"scaling_config": -1}, "scaling_config is -1, but it must be a whole number of at least 0 and"),
    ({"scaling_config": True}, "scaling_config is True, but it must be a whole number"),
    ({"scaling_config": 1.5}, "scaling_config is 1.5, but it must be a whole number"),
    ({"scaling_config": "4"}, "scaling_config is '4', but it must be a whole number"),
    ({"scaling_config": Scaling}, "scaling_config is the class Scaling, but it must be a whole number"),
    ({"run_config": 5}, "run_config is 5, but it must be a path or a ray.train.RunConfig or None."),
    ({"stop_test_accuracy": 0.5}, "stop_test_accuracy is 0.5, but this run does not measure test_accuracy and would"),
    ({"run_config": "a\0b"}, "run_config is 'a\\x00b', but no file or folder can have such a path: use one without"),
    ({"run_config": "\ud800"}, "run_config is '\\ud800', but no file or folder can have such a path"),
    (
        {"run_config": "x" * 300},
        f"run_config is '{27 * 'x'}...{28 * 'x'}', but no file or folder",
    ),
    ({"run_config": "x/" * 3000}, "run_config is 'x/x/"),
    ({"run_config": ""}, "run_config is '', but it must be a path or a ray.train.RunConfig or None."),
    ({"run_config": b"/tmp/run"}, "run_config is b'/tmp/run', but it must be a path"),
    ({"replay": 3}, "replay is no argument of PisaTrainer: use asynchronous=Asynchronous(replay=...)."),
    ({"evaluate": print}, "evaluate is no argument of PisaTrainer: use metrics."),
    ({"batchsize": 3}, "batchsize is no argument of PisaTrainer: use batch_size."),
    ({"ray_address": 6379}, "ray_address is 6379, but it must be a text or None."),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG, ids=[f"{k}={v!r:.20}" for d, _ in WRONG for k, v in d.items()])
def test_a_wrong_argument_is_named_and_nothing_is_written(tmp_path, change, sentence):
    with pytest.raises(ConfigError) as error:
        PisaTrainer(**arguments(tmp_path, **change))
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


CLASSES = [getattr(pisa_ray, name) for name in sorted(pisa_ray.__all__) if isinstance(getattr(pisa_ray, name), type)]


def test_paths_may_be_of_any_kind(tmp_path: Path) -> None:
    class Place:
        def __fspath__(self) -> str:
            return str(tmp_path / "like")

    for given, place in ((str(tmp_path / "text"), "text"), (tmp_path / "path", "path"), (Place(), "like")):
        result = PisaTrainer(**arguments(tmp_path, run_config=given, rounds=1)).fit()
        assert result.path == tmp_path / place


def test_a_trainer_is_itself_and_writes_what_a_file_says(tmp_path: Path) -> None:
    trainer, other = (PisaTrainer(**arguments(tmp_path, run_config=tmp_path / "run")) for _ in range(2))
    assert trainer != other
    assert len({trainer, other}) == 2
    assert repr(trainer).startswith(f"PisaTrainer('{tmp_path / 'run'}', rounds=")
    assert not {"resume", "overwrite", "progress", "warn", "opened", ""} & trainer.written().keys()
