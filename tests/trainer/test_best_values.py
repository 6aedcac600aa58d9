"""Best values are of the evaluations that were planned, so they are the same however often a run was interrupted."""

from __future__ import annotations

from runs import run

from pisa_ray.trainer import checkpoint


def test_the_row_of_a_stop_is_no_evaluation(tmp_path):
    stopped = run(tmp_path / "run", rounds=6, evaluate_every=3, stop_seconds=1e-9)
    assert stopped.status == "stopped"
    assert stopped.metrics["rounds"] == 1
    assert "test_loss" in stopped.metrics
    assert not [name for name in stopped.metrics if name.startswith("best_")]
    assert checkpoint.latest(stopped.path / "checkpoints").progress.best == {}
    resumed = run(tmp_path / "run", rounds=6, evaluate_every=3, resume=True)
    rows = {row["round"]: row for row in resumed.history}
    assert sorted(rows) == [3, 6]
    assert resumed.metrics["best_test_loss"] == min(row["test_loss"] for row in rows.values())
    assert resumed.metrics["best_test_accuracy"] == max(row["test_accuracy"] for row in rows.values())
