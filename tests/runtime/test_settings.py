"""Ray Train's configs are honoured, and placement keeps its promises."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from runs import run

from pisa_ray import ConfigError
from pisa_ray.actors.balance import cut_into_runs
from pisa_ray.actors.session import RayResources
from pisa_ray.trainer.settings import Run, Scaling


def test_scaling_config():
    assert Scaling.of(None) == Scaling(1, 1)
    assert Scaling.of(0) == Scaling(0, 0)
    assert Scaling.of(ScalingConfig(num_workers=3)) == Scaling(3, 3)
    assert Scaling.of(ScalingConfig(num_workers=(2, 8))) == Scaling(2, 8)
    assert Scaling.of(ScalingConfig(num_workers=2, use_gpu=True)) == Scaling(2, 2, cpus=0, gpus=1)
    each = {"CPU": 2, "GPU": 0.5, "big": 1}
    assert Scaling.of(ScalingConfig(num_workers=2, resources_per_worker=each, use_gpu=True)) == Scaling(
        2, 2, 2, 0.5, {"big": 1}
    )
    where = ScalingConfig(
        num_workers=1, use_gpu=True, accelerator_type="T4", label_selector={"zone": "a"}, placement_strategy="SPREAD"
    )
    scaling = Scaling.of(where)
    assert (scaling.accelerator, scaling.labels, scaling.spread) == ("T4", {"zone": "a"}, True)
    with pytest.raises(ConfigError, match="placement_strategy is 'STRICT_PACK', but workers come and go"):
        Scaling.of(ScalingConfig(num_workers=1, placement_strategy="STRICT_PACK"))
    for bad in (Scaling, lambda *a: Scaling(*a, cpus=1)):
        with pytest.raises(ConfigError, match="the number of workers is 3 to 2"):
            bad(3, 2)
    with pytest.raises(ConfigError, match="0 for this process"):
        Scaling(0, 2)


def test_label_selectors():
    suits = RayResources(labels={"zone": "in(a, b)", "kind": "!spot"}).suit
    assert suits({"zone": "a"})
    assert suits({"zone": "b", "kind": "od"})
    assert not suits({"zone": "c"})
    assert not suits({"zone": "a", "kind": "spot"})
    assert not RayResources(labels={"zone": "!in(a, b)"}).suit({"zone": "b"})


def test_run_config(tmp_path):
    config = RunConfig(
        name="n",
        storage_path=str(tmp_path),
        checkpoint_config=CheckpointConfig(num_to_keep=3),
        failure_config=FailureConfig(max_failures=1),
    )
    assert Run.of(config) == Run(tmp_path / "n", 3, 1)
    assert Run.of(str(tmp_path)) == Run(tmp_path, 2, -1)
    assert Run.of(RunConfig(name="n", storage_path=str(tmp_path))) == Run(tmp_path / "n", 2, -1)
    best = CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="test_loss", checkpoint_score_order="min")
    scored = RunConfig(name="n", storage_path=str(tmp_path), checkpoint_config=best)
    assert Run.of(scored) == Run(tmp_path / "n", 1, best_by="test_loss", order="min")
    assert Run.of(None).placed().path.parent == Path("runs")
    with pytest.raises(ConfigError, match=r"nowhere://x cannot be opened .*: use a local folder or a URI"):
        Run.of(RunConfig(name="n", storage_path="nowhere://x"))


def test_num_to_keep(tmp_path):
    config = RunConfig(name="run", storage_path=str(tmp_path), checkpoint_config=CheckpointConfig(num_to_keep=2))
    result = run(tmp_path, rounds=5, run_config=config, checkpoint_every=1)
    assert result.path == tmp_path / "run"
    kept = sorted(folder.name for folder in (result.path / "checkpoints").iterdir())
    assert [name[:13] for name in kept] == ["round-000004-", "round-000005-"]


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=60), st.data())
def test_placement_covers_all_shards_in_order_and_leaves_no_worker_idle(costs, data):
    workers = data.draw(st.integers(1, len(costs)))
    paces = data.draw(st.lists(st.floats(1e-6, 1e3), min_size=workers, max_size=workers))
    placed = cut_into_runs(costs, paces)
    assert [i for shards in placed for i in shards] == list(range(len(costs)))
    assert len(placed) == workers
    assert all(placed)


@given(st.integers(1, 200), st.integers(1, 20))
def test_equal_costs_are_spread_evenly(shards, workers):
    workers = min(workers, shards)
    sizes = [len(part) for part in cut_into_runs([1.0] * shards, [0.3] * workers)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.ray
@pytest.mark.usefixtures("fresh_processes")
def test_a_range_takes_what_there_is_and_too_many_workers_are_refused(tmp_path):
    """The tests' Ray has eight cores."""
    wide = run(tmp_path / "wide", scaling_config=Scaling(1, 5, cpus=3), rounds=2)
    assert wide.metrics["workers"] == 2
    again = run(tmp_path / "again", workers=Scaling(2, 2, cpus=4), rounds=1)  # what has just ended is waited for
    assert again.metrics["workers"] == 2
    with pytest.raises(ConfigError, match="room for 2 of at least 3 workers of 3 CPU each, and no node will join it"):
        run(tmp_path / "too-many", workers=Scaling(3, 3, cpus=3), rounds=2)
    gold = Scaling(1, 1, other={"gold": 1})
    with pytest.raises(ConfigError, match="room for 0 of at least 1 workers of 1 CPU, 1 gold each"):
        run(tmp_path / "gold", scaling_config=gold, rounds=2)
