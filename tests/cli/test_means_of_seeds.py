"""A table's means and spreads: over all seeds that came to their end, and none where one of these has no value."""

from __future__ import annotations

import statistics
from types import SimpleNamespace

import pytest

from pisa_ray.cli.compare.results import CellResult, summarise
from pisa_ray.cli.compare.run import Outcome


def result(seed, score, status="finished"):
    method = SimpleNamespace(vectors=1)
    config = SimpleNamespace(rounds=10, participation=1.0, algorithm=method)
    cell = SimpleNamespace(algorithm="sisa", partition="iid", seed=seed, config=config)
    row = {"round": 10, "sample_gradients": 100, "bytes_sent": 8, "test_accuracy": score}
    return CellResult(cell, Outcome(status), {"rounds": 10}, [row], shards=2)


def last(*results):
    (row,) = summarise(results, "test_accuracy")
    return row, row["last_test_accuracy"]


@pytest.mark.parametrize("scores", [[0.5, 0.75], [0.9, 0.7, 0.8], [0.1, 0.1, 0.1, 0.5]])
def test_a_spread_is_of_all_seeds(scores):
    row, spread = last(*(result(seed, score) for seed, score in enumerate(scores)))
    assert spread["mean"] == pytest.approx(statistics.mean(scores))
    assert spread["std"] == pytest.approx(statistics.stdev(scores))
    assert (spread["min"], spread["max"]) == (min(scores), max(scores))
    assert (row["seeds"], row["measured"], row["sample_gradients"], row["vectors_per_shard"]) == (
        *[len(scores)] * 2,
        100,
        10,
    )


def test_one_seed_has_no_deviation():
    assert last(result(0, 0.5))[1] == {"mean": 0.5, "std": None, "min": 0.5, "max": 0.5}


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), "0.5", True])
def test_where_a_value_is_missing_there_is_no_mean_of_the_others(missing):
    row, spread = last(result(0, 0.5), result(1, missing), result(2, 0.7))
    assert set(spread.values()) == {None}
    assert row["measured"] == 3


@pytest.mark.parametrize(("status", "column"), [("diverged", "diverged"), ("failed", "failed")])
def test_who_did_not_come_to_the_end_is_counted_and_is_in_no_mean(status, column):
    row, spread = last(result(0, 0.5), result(1, 0.1, status))
    assert spread["mean"] == 0.5
    assert (row["seeds"], row["measured"], row[column]) == (2, 1, 1)
