"""Running a cell twice: a sentence in Python's words, or with overwrite=True the run anew in place of the old one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from pisa_ray import IID, SISA, ConfigError, Data, NonFiniteError, PisaTrainer
from pisa_ray.cli.main import main
from pisa_ray.trainer.run_directory import RunDirectory

RANDOM = np.random.default_rng(0)
DATA = Data(train=(RANDOM.normal(size=(20, 3)).astype(np.float32), RANDOM.integers(0, 2, 20)))
HOLDS = (
    r"run holds a run already: use resume=True to go on with it, overwrite=True to replace it, or another run_config\.$"
)


def trainer(path: Path, **changes: Any) -> PisaTrainer:
    return PisaTrainer(
        **{
            "model": lambda: nn.Linear(3, 2),
            "data": DATA,
            "partition": IID(2),
            "algorithm": SISA(sigma=1.0, rho=1.0),
            "rounds": 2,
            "scaling_config": 0,
            "run_config": path / "run",
            "progress": False,
            **changes,
        }
    )


def files(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if "round-" not in str(file)}


def test_a_cell_that_is_run_twice_is_answered_in_pythons_words(tmp_path):
    first = trainer(tmp_path)
    first.fit()
    with pytest.raises(ConfigError, match=HOLDS):
        first.fit()
    with pytest.raises(ConfigError, match=HOLDS):
        trainer(tmp_path)


def test_overwrite_replaces_all_of_a_run(tmp_path):
    """With other settings: nothing of the old one is left, and the new one is what it would be in a new folder."""
    longer = trainer(tmp_path, rounds=5, checkpoint_every=1, seed=1)
    longer.fit()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    replaced = trainer(tmp_path, overwrite=True).fit()
    fresh = trainer(tmp_path / "fresh").fit()
    assert replaced.metrics["weights_sha256"] == fresh.metrics["weights_sha256"]
    assert [row["round"] for row in replaced.history] == [2]
    assert [folder.name[:12] for folder in (tmp_path / "run" / "checkpoints").iterdir()] == ["round-000002"]
    assert files(tmp_path / "run") == files(fresh.path) | {"notes.txt"}  # what is not ours stays
    assert (replaced.path / "config.yaml").read_text() == (fresh.path / "config.yaml").read_text()
    resumed = trainer(tmp_path, rounds=3, resume=True).fit()
    assert resumed.metrics["rounds"] == 3


def test_a_trainer_that_overwrites_may_be_run_again(tmp_path):
    again = trainer(tmp_path, overwrite=True)
    assert again.fit().metrics["weights_sha256"] == again.fit().metrics["weights_sha256"]


def test_the_old_run_stays_until_round_1_begins(tmp_path):
    old = trainer(tmp_path).fit()
    with pytest.raises(ConfigError, match="rounds is 0"):
        trainer(tmp_path, overwrite=True, rounds=0)
    trainer(tmp_path, overwrite=True)  # which is not run
    flat = Data(train=(np.zeros((20, 3), np.float32), np.zeros(20)))
    with pytest.raises((ConfigError, NonFiniteError)):  # the automatic start finds no curvature
        trainer(tmp_path, overwrite=True, data=flat, model=Flat, algorithm=SISA()).fit()
    assert trainer(tmp_path, resume=True).fit().metrics["weights_sha256"] == old.metrics["weights_sha256"]


class Flat(nn.Linear):
    """Whose output is 0."""

    def __init__(self):
        super().__init__(3, 1)

    def forward(self, x):
        return super().forward(x) * 0


def test_a_run_with_a_driver_at_work_is_not_replaced(tmp_path):
    trainer(tmp_path).fit()
    waiting = trainer(tmp_path, overwrite=True)
    with RunDirectory(tmp_path / "run").lock():
        with pytest.raises(ConfigError, match="is in use by the run of process"):
            trainer(tmp_path, overwrite=True)
        with pytest.raises(ConfigError, match="is in use by the run of process"):
            waiting.fit()


def test_a_folder_that_is_no_run_of_ours_is_not_replaced(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("somebody's\n")
    with pytest.raises(ConfigError, match="holds a run already"):
        trainer(tmp_path, overwrite=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == "somebody's\n"


def test_to_go_on_and_to_replace_exclude_each_other(tmp_path):
    with pytest.raises(ConfigError, match="resume=True goes on with a run, but overwrite=True replaces it"):
        trainer(tmp_path, resume=True, overwrite=True)


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "data: {dataset: digits}\npartition: {kind: iid, shards: 2}\nmodel: {kind: mlp, hidden: [4]}\nworkers: 0\n"
    Path("c.yaml").write_text(text + "algorithm: {kind: sisa, sigma: 1, rho: 1}\nrounds: 2\n")
    command = ["train", "c.yaml", "--quiet", "--out", "run"]
    assert main(command) == 0
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "holds a run already: use --resume to go on with it, --overwrite to replace it, or another --out." in told
    assert main([*command, "--overwrite", "--set", "rounds=1"]) == 0
    assert "finished after 1 rounds" in capsys.readouterr().out
    assert main([*command, "--overwrite", "--resume"]) == 2
    assert "--resume goes on with a run, but --overwrite replaces it: use one of the two." in capsys.readouterr().err
