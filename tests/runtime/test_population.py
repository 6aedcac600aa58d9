"""Population based training in Ray Tune itself, and what is relied on of it."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import ray
from pyarrow.fs import LocalFileSystem
from ray import tune
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import PopulationBasedTraining, pbt
from runs import uneven
from torch import nn

from pisa_ray import SISA, ConfigError, Data, Geometric
from pisa_ray.tuning import History, PisaTrainable, population, reserve

K0 = [1, 2, 5, 10]


def trainable():
    """With what it needs by value: processes of Tune cannot import this module."""
    partition, data = uneven(), Data(train="digits", validation=0.1)

    def build(config):
        return {
            "model": lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
            "data": data,
            "partition": partition,
            "algorithm": SISA(sigma=0.3, rho=30.0),
            "sigma_schedule": Geometric(0.9, config["k0"]),
            "rounds": 60,
            "batch_size": 16,
        }

    return tune.with_resources(tune.with_parameters(PisaTrainable, build=build, every=5), reserve(cpus=0.5))


def tuner(folder: Path, *callbacks: tune.Callback, **changes) -> tune.Tuner:
    """Four members that share the cluster, k0 from one to ten."""
    return tune.Tuner(
        trainable(),
        param_space={"k0": tune.grid_search(K0)},
        tune_config=tune.TuneConfig(scheduler=population({"k0": K0}, interval=10, **changes), reuse_actors=True),
        run_config=tune.RunConfig(
            name="pbt",
            storage_path=str(folder),
            verbose=0,
            callbacks=[History(), *callbacks],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4),
        ),
    )


class Reported(tune.Callback):
    """What trials said, by trial, as the driver heard it."""

    def __init__(self):
        self.rows = defaultdict(list)

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.rows[trial.trial_id].append((result["round"], result["k0"]))


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_session")
def test_k0_changes_while_members_train(tmp_path):
    """The worse half always draws anew, so that luck does not keep every k0 as it was; the history has every row."""
    reported = Reported()
    results = tuner(tmp_path, reported, quantile_fraction=0.5, resample_probability=1.0).fit()
    assert len(results) == len(K0)
    assert not results.errors
    lines = [
        [json.loads(line) for line in (Path(result.path) / "result.json").read_text().splitlines()]
        for result in results
    ]
    assert all(rows[-1]["round"] == 60 for rows in lines)
    heard = {rows[0]["trial_id"]: [(row["round"], row["k0"]) for row in rows] for rows in lines}
    assert heard == reported.rows
    assert any(len({row["k0"] for row in rows}) > 1 for rows in lines)
    assert {row["k0"] for rows in lines for row in rows} <= set(K0)
    assert results.get_best_result("validation_accuracy", "max").metrics["validation_accuracy"] > 0.5


SEARCH = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from test_population import trainable, tuner
from ray import tune
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
folder = Path(sys.argv[1])
if sys.argv[2] == "restore":
    again = tune.Tuner.restore(str(folder / "pbt"), trainable=trainable(), resume_unfinished=True, restart_errored=True)
else:
    again = tuner(folder)
results = again.fit()
print("rounds", sorted(result.metrics["round"] for result in results), len(results.errors))
"""


@pytest.mark.cluster
@pytest.mark.slow
def test_a_search_that_was_killed_ends_when_it_is_restored(tmp_path):
    """As soon as there is a checkpoint the driver is killed; Tuner.restore goes on, and all members end."""
    paths = [str(Path(__file__).parent), *sys.path]
    command = [sys.executable, "-c", SEARCH.format(paths=paths), str(tmp_path)]
    with subprocess.Popen([*command, "start"], start_new_session=True, stdout=subprocess.DEVNULL) as first:
        until = time.monotonic() + 240
        while not list(tmp_path.glob("pbt/*/checkpoint_*/round-*/manifest.json")):
            assert first.poll() is None, "the search ended before it could be killed"
            assert time.monotonic() < until
            time.sleep(0.1)
        os.killpg(first.pid, signal.SIGKILL)
    done = subprocess.run([*command, "restore"], check=True, capture_output=True, text=True, timeout=400)
    assert "rounds [60, 60, 60, 60] 0" in done.stdout


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_what_does_not_fit_the_cluster_is_told_and_not_waited_for():
    there = ray.cluster_resources()["CPU"]
    with pytest.raises(ConfigError, match=f"a trial reserves {there + 1:g} CPU, but the cluster has {there:g}: use"):
        reserve(workers=1, cpus=there + 1)
    with pytest.raises(ConfigError, match="1 GPU, but the cluster has 0"):
        reserve(gpus=1)
    assert reserve(workers=2, cpus=0.5).bundles == [{"CPU": 0.5}, {"CPU": 0.5}]


def test_a_trial_that_goes_on_keeps_its_rows(tmp_path):
    """Tune puts the copy in the storage, which may be old, in the place of result.json whenever a trial goes on."""

    class Trial:
        config: ClassVar = {"k0": 1}
        checkpoint = "one"
        local_path = str(tmp_path / "here")
        storage = SimpleNamespace(trial_fs_path=str(tmp_path / "stored"), storage_filesystem=LocalFileSystem())

        def init_local_path(self):
            """It is there."""

    def rows():
        return [json.loads(line)["round"] for line in (tmp_path / "here" / "result.json").read_text().splitlines()]

    trial = Trial()
    (tmp_path / "stored").mkdir()
    (tmp_path / "stored" / "result.json").write_text('{"round": 5}\n')
    for logger, kept in ((JsonLoggerCallback(), [5, 15]), (History(), [5, 10, 15])):
        (tmp_path / "here").mkdir()
        logger.on_trial_start(0, [], trial)
        assert rows() == [5]  # as after Tuner.restore
        logger.on_trial_result(0, [], trial, {"round": 10})
        logger.on_trial_start(0, [], trial)  # paused, and going on
        logger.on_trial_result(0, [], trial, {"round": 15})
        assert rows() == kept
        logger.on_trial_complete(0, [], trial)
        shutil.rmtree(tmp_path / "here")


# What is relied on of Ray Tune


def test_mutations_stay_within_their_ranges():
    """Tune multiplies without looking at the range; lists are stepped through, and end at their ends."""
    scheduler = population({"k0": K0, "sigma": (0.5, 2.0)}, interval=1, resample_probability=0.0)
    seen = set()
    for _ in range(40):
        config, _ = pbt._explore(
            {"k0": 10, "sigma": 1.9},
            scheduler._hyperparam_mutations,
            0.0,
            (1.2, 0.8),
            scheduler._custom_explore_fn,
        )
        seen.add((config["k0"], round(config["sigma"], 3)))
    assert seen <= {(5, 1.52), (5, 2.0), (10, 1.52), (10, 2.0)}
    assert len(seen) > 1


def test_populations_are_asynchronous():
    """A synchronous one waits for ever after Tuner.restore (Ray 2.60)."""
    assert not population({"k0": K0}, interval=1)._synch
    assert "synch" in inspect.signature(PopulationBasedTraining.__init__).parameters
