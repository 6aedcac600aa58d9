"""What the arguments of PisaTrainer must be, each by itself."""

from __future__ import annotations

from torch import nn

from pisa_ray import checks
from pisa_ray.algorithm import Robust
from pisa_ray.algorithm.method import Method
from pisa_ray.data import Partition
from pisa_ray.engine.asynchrony import Asynchronous
from pisa_ray.options import rule
from pisa_ray.schedulers import SigmaSchedule
from pisa_ray.schedulers.schedule import Rounds
from pisa_ray.trainer.data import Data, Opened

_COUNT = checks.whole(least=1)
_SHARDS = checks.sequence(checks.whole(least=0), "a list of shards")

#: By name; scaling_config and run_config are looked at by pisa_ray.trainer.settings.
ARGUMENTS = {
    "model": checks.instance("a torch.nn.Module", nn.Module) | checks.function,
    "data": checks.instance("data such as Data(train='rows.parquet', input='x', label='y')", Data, Opened),
    "partition": rule(Partition),
    "rounds": rule(Rounds),
    "algorithm": rule(Method) | checks.nothing,
    "loss": checks.text | checks.function | checks.nothing,
    "evaluate": checks.text
    | checks.function
    | checks.sequence(checks.text | checks.function, "a list of them")
    | checks.nothing,
    "batch_size": _COUNT | checks.nothing,
    "micro_batch_size": _COUNT | checks.nothing,
    "clip_norm": checks.number(above=0, infinite=True) | checks.nothing,
    "autocast": checks.flag,
    "shard_weights": checks.choice("size", "uniform"),
    "participation": checks.number(above=0, most=1)
    | checks.sequence(_SHARDS, "a list of the shards of each round, such as [[0, 1], [2, 3]]"),
    "asynchronous": checks.instance("a rule such as Asynchronous(quorum=0.5)", Asynchronous) | checks.nothing,
    "replay": checks.path | checks.nothing,
    "pin_to": checks.mapping(checks.within, "a dictionary such as {'site': ['lyon', 'bonn']}") | checks.nothing,
    "robust": rule(Robust) | checks.nothing,
    "sigma_schedule": rule(SigmaSchedule) | checks.nothing,
    "seed": checks.whole(least=0),
    "evaluate_every": _COUNT,
    "checkpoint_every": _COUNT | checks.nothing,
    "stop_seconds": checks.number(above=0, infinite=True) | checks.nothing,
    "stop_test_accuracy": checks.number(above=0, most=1) | checks.nothing,
    "threads_per_worker": checks.whole(least=1, most=1024),
    "compiled": checks.flag | checks.nothing,
    "resume": checks.flag,
    "overwrite": checks.flag,
    "exact": checks.flag,
    "ray_address": checks.text | checks.nothing,
    "progress": checks.flag,
    "warn": checks.flag,
    "config": checks.mapping(checks.within, "a dictionary") | checks.nothing,
}
