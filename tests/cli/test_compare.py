"""Comparisons: what is refused, equal work, tables, and cells that diverge or fail."""

import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compare_files import FILE, SISA_D, changed

from pisa_ray import IID, Data, OnlineK0
from pisa_ray.algorithm import SISA, SISAD, Scaffold
from pisa_ray.cli.compare import Spec, compare
from pisa_ray.cli.compare.cells import Cell, check, plan
from pisa_ray.cli.compare.results import CellResult, describe, summarise
from pisa_ray.cli.compare.run import Outcome
from pisa_ray.cli.compare.tables import comma_separated, markdown
from pisa_ray.cli.compare.work import in_proportion, rounds_at_equal_work
from pisa_ray.cli.evaluate import evaluate
from pisa_ray.cli.main import main
from pisa_ray.cli.report import write_report
from pisa_ray.errors import ConfigError
from pisa_ray.models import lenet
from pisa_ray.trainer.config import Config

ROOT = Path(__file__).parents[2]

#: Models that give NaN, or raise an error, after so many forward passes for training.
MODELS = """
from torch import nn


class Ends(nn.Sequential):
    def __init__(self, after, with_error):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
        self.after, self.with_error = after, with_error

    def forward(self, x):
        self.after -= self.training
        if self.after < 0 and self.with_error:
            raise ValueError("the hamster left")
        return super().forward(x) * (1 if self.after >= 0 else float("nan"))


def diverges():
    return Ends(20, False)


def fails():
    return Ends(20, True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "test_compare_models.py").write_text(MODELS)
    yield tmp_path
    sys.modules.pop("test_compare_models", None)


# What is refused


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rounds": 2}, "rounds is not a setting: the nearest one is base.rounds."),
        ({"algoritms": {}}, "algoritms is not a setting: the nearest one is algorithms."),
        ({"algorithms": {}}, "algorithms is empty, but"),
        ({"algorithms__FedAvg": None}, "algorithms.FedAvg.algorithm is missing: add it, such as algorithm: {kind: "),
        ({"algorithms__SISA": {"kind": "sisa"}}, "algorithms.SISA.kind is not for here: write algorithm: {kind: ...}."),
        ({"seeds": [0, 0]}, "seeds is .0, 0., but each must be there once."),
        ({"seeds": [True]}, "seeds\\[0\\] is true, but it must be a whole number of at least 0"),
        ({"equal": "time"}, "equal is 'time', but it must be 'gradients', 'bytes' or 'rounds'."),
        ({"base__seed": 1}, "base.seed is not for here: leave it out and set seeds."),
        ({"base__partition": {}}, "base.partition is not for here: leave it out and set partitions."),
        ({"base__roundz": 1}, "base.roundz is not a setting: the nearest one is rounds."),
        ({"base__model": {"kind": "mpl"}}, "base.model.kind is 'mpl', but it must be one of mlp"),
        ({"base__stop": {"seconds": 1}}, "base.stop.seconds would end cells by the clock"),
        ({"algorithms__SISA__rounds": 1}, "algorithms.SISA.rounds is not for here: leave it out and set base.rounds."),
        (
            {"algorithms__SISA__algorithm": {"kind": "sisa", "sigma": -1}},
            "algorithms.SISA.algorithm.sigma is -1, but it must be a number above 0 and at most",
        ),
        (
            {"algorithms__a-b": {}, "algorithms__a b": {}},
            "algorithms.a b and algorithms.a-b would share the folder a-b",
        ),
        ({"partitions__x": {"kind": "iid"}}, "partitions.x.shards is missing and has no default"),
        ({"partitions__x": {"partition": {"kind": "iid"}}}, "partitions.x.partition.shards is missing"),
        ({"partitions__x": {"kind": "labels_per_shard", "shards": 4, "labels": 12}}, "partitions.x.labels is 12, but"),
        ({"base__data": {"train": "nowhere"}}, "base.data.train is '.*nowhere', but there is no such file"),
        ({"algorithms__SISA__model": {"factory": "no:no"}}, "algorithms.SISA.model.factory is 'no:no'"),
        ({"score": "test_acuracy"}, "score is 'test_acuracy', but the rows do not measure it: use one of test_loss"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], sentence: str
) -> None:
    (folder / "c.yaml").write_text(yaml.safe_dump(changed(**change), sort_keys=False))

    assert main(["compare", "c.yaml", "--out", "out"]) == 2

    said = capsys.readouterr().err
    assert re.match(f"pisa-ray: {sentence}", said), said
    assert said.count("\n") == 1
    assert not (folder / "out").exists()


def test_numbers_and_overrides_are_read_as_in_a_train_file(folder: Path) -> None:
    (folder / "c.yaml").write_text(yaml.safe_dump(FILE, sort_keys=False).replace("rho: 30", "rho: 3e1"))

    spec = Spec.load(
        folder / "c.yaml",
        ["base.rounds=12", "base.data.validation=held.parquet", "algorithms.SISA.batch_size=4", "seeds=[3]"],
    )

    (cell, _) = plan(spec, folder / "out")
    assert spec.file.base["data"] == {"dataset": "digits", "validation": str(folder / "held.parquet")}
    assert (cell.config.rounds, cell.config.batch_size, cell.config.seed) == (12, 4, 3)
    assert cell.config.algorithm.rho == 30
    assert cell.config.scaling.most == 0
    assert cell.path == folder / "out" / "runs" / "sisa" / "two-labels" / "seed-3"


@pytest.mark.parametrize("example", sorted((ROOT / "examples" / "compare").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_settings_are_known(example: Path, tmp_path: Path) -> None:
    spec = Spec.load(example)

    assert spec.file.name == f"{example.stem}-compare"
    assert plan(spec, tmp_path)
    assert example.read_text().startswith("# ")


def test_the_documents_settings_are_known(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "compare.md").read_text(), re.DOTALL)
    (tmp_path / "c.yaml").write_text(block)
    spec = Spec.load(tmp_path / "c.yaml")
    cells = check(spec, plan(spec, tmp_path))
    assert [cell.config.rounds for cell in cells[:3]] == [60, 60, 20]


# Equal work


@pytest.mark.parametrize(
    ("equal", "method", "row", "shards", "rounds"),
    [
        ("gradients", SISA(), {}, [100, 100], 200),
        ("gradients", SISA(), {"sigma_schedule": OnlineK0(share=0.25)}, [100, 100], 160),
        ("gradients", SISA(), {"participation": 0.25}, [100] * 4, 797),
        ("gradients", SISA(), {"participation": 0.1}, [100] * 4, 797),  # at least one
        ("gradients", SISA(), {"batch_size": 20}, [100, 100], 100),
        ("gradients", SISA(), {"batch_size": "full"}, [100, 300], 10),
        ("gradients", SISA(), {"batch_size": 20}, [5, 5], 200),  # the shards have no more rows
        ("gradients", SISAD(local_steps=5), {}, [100, 100], 40),
        ("gradients", SISA(local_steps=4), {"batch_size": 5}, [100, 100], 100),
        ("gradients", Scaffold(epochs=1), {}, [100, 100], 20),
        ("gradients", Scaffold(epochs=1), {}, [50, 150], 20),
        ("gradients", Scaffold(epochs=1), {}, [10_000], 1),
        ("bytes", SISA(), {}, [100], 200),
        ("bytes", SISAD(), {}, [100], 100),
        ("bytes", SISAD(local_steps=5), {}, [100], 100),
        ("bytes", Scaffold(epochs=1), {"participation": 0.5}, [100] * 2, 199),
        ("rounds", Scaffold(epochs=1), {"participation": 0.5}, [100], 200),
    ],
)
def test_every_row_gets_the_rounds_that_fit(
    equal: str, method: Any, row: dict[str, Any], shards: list[int], rounds: int
) -> None:
    base = Config(data=Data(train="digits"), partition=IID(2), model=lenet, rounds=200, batch_size=10)
    assert rounds_at_equal_work(equal, base, base.changed(**row), method, shards) == rounds


def test_messages_and_evaluations() -> None:
    assert [in_proportion(20, 200, rounds) for rounds in (400, 200, 20, 1)] == [40, 20, 2, 1]


# Tables


def made_up(cell: Cell, status: str, accuracies: list[float]) -> CellResult:
    rows = [
        {"round": 4 * i, "sample_gradients": 160 * i, "bytes_sent": 0, "test_accuracy": a, "test_loss": 1 - a}
        for i, a in enumerate(accuracies, 1)
    ]
    return CellResult(cell, Outcome(status, "" if status == "finished" else "round 9 is not finite"), rows[-1], rows, 5)


def test_the_table_has_the_values_of_the_rows(folder: Path) -> None:
    spec = Spec.of(changed(seeds=[0, 1]))
    first, second, third, fourth = plan(spec, folder)
    results = [
        made_up(first, "finished", [0.5, 0.75, 0.5]),
        made_up(second, "diverged", [0.5]),
        made_up(third, "finished", [0.5, 0.5, 1.0]),
        made_up(fourth, "diverged", [0.5]),
    ]

    row, lost = summarise(results, "test_accuracy")

    assert (row["seeds"], row["measured"], row["sample_gradients"], row["rounds"]) == (2, 2, 480, 8)
    assert row["last_test_accuracy"] == {"mean": 0.75, "std": math.sqrt(0.125), "min": 0.5, "max": 1.0}
    assert row["best_test_accuracy"] == {"mean": 0.875, "std": math.sqrt(0.03125), "min": 0.75, "max": 1.0}
    assert row["last_test_loss"]["mean"] == 0.25
    assert (lost["measured"], lost["diverged"], lost["last_test_accuracy"]["mean"]) == (0, 2, None)
    assert summarise(results, "test_loss")[0]["best_test_loss"]["mean"] == 0.125
    assert describe(results[1], "test_accuracy")["run"] == "runs/twice-the-batch/two-labels/seed-0"

    text = markdown([row, lost], "test_accuracy", "gradients").splitlines()
    assert "test accuracy at equal gradients" in text[0]
    assert [cell.strip() for cell in text[6].split("|")][1:-1] == [
        *("SISA", "2", "8", "480", "-", "8"),
        *("0.7500 ± 0.3536 (0.5000 to 1.0000)", "0.8750 ± 0.1768 (0.7500 to 1.0000)"),
        "0.2500 ± 0.3536 (0.0000 to 0.5000)",
    ]
    assert text[7].count("diverged") == 4
    assert len({len(line) for line in text[4:8]}) == 1
    head, line, _ = comma_separated([row, lost]).splitlines()
    assert dict(zip(head.split(","), line.split(","), strict=True))["last_test_accuracy_max"] == "1.0"


# Runs


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_cells_are_runs_and_what_diverges_or_fails_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = changed(
        algorithms__Diverging={**SISA_D, "model": {"factory": "test_compare_models:diverges"}},
        algorithms__Failing={**SISA_D, "model": {"factory": "test_compare_models:fails"}},
        **{"algorithms__With workers": {**FILE["algorithms"]["SISA"], "workers": 1}},
    )
    (folder / "c.yaml").write_text(yaml.safe_dump(values, sort_keys=False))

    assert main(["compare", "c.yaml", "--out", "out"]) == 1

    printed = capsys.readouterr()
    assert "the hamster left" in printed.err
    assert "5/5" in printed.err
    table = json.loads((folder / "out" / "table.json").read_text())
    cells = {cell["algorithm"]: cell for cell in table["cells"]}
    assert [cell["status"] for cell in cells.values()] == ["finished", "finished", "diverged", "failed", "finished"]
    assert (folder / "out" / "table.md").read_text() in printed.out
    assert [row["rounds"] for row in table["rows"]] == [8, 4, 8, 8, 8]
    assert [cells[name]["sample_gradients"] for name in ("SISA", "Twice the batch")] == [320, 320]
    assert table["rows"][4]["bytes_sent"] > 0
    assert "Twice the batch,two labels,0," in (folder / "out" / "times.csv").read_text()

    # The bits are those of pisa-ray train with the recorded configuration, in this process or with workers.
    run = folder / "out" / cells["SISA"]["run"]
    assert main(["train", str(run / "config.yaml"), "--out", "again", "--quiet"]) == 0
    again = json.loads((folder / "again" / "result.json").read_text())
    assert again["weights_sha256"] == cells["SISA"]["weights_sha256"] == cells["With workers"]["weights_sha256"]
    assert evaluate(run)["weights_sha256"] == again["weights_sha256"]
    assert write_report([run]).exists()
    batch = yaml.safe_load((folder / "out" / cells["Twice the batch"]["run"] / "config.yaml").read_text())
    assert (batch["rounds"], batch["evaluate_every"], batch["checkpoint"]["every"]) == (4, 2, 1)

    page = (folder / "out" / "index.html").read_text()
    assert not re.search(r"<(script|link|img|iframe)|https?://(?!www\.w3\.org)|url\((?!#)", page)
    assert page.count("<figure") == 1
    assert page.count("<svg role") == 1
    assert "the hamster left" in page
    assert "algorithm: {kind: sisa, sigma: 0.3, rho: 30}" in page


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_comparison_grows_and_keeps_what_it_has(folder: Path) -> None:
    first = compare(changed(seeds=[1]), "out", progress=False)
    assert first.status == "finished"
    ended = (folder / "out" / first.cells[0]["run"] / "result.json").stat().st_mtime_ns

    with pytest.raises(ConfigError, match="holds a comparison already: use --resume"):
        compare(changed(seeds=[1]), "out", progress=False)
    with pytest.raises(
        ConfigError, match=r"^SISA, two labels, seed 1 was started with rounds = 8, not 16: resume with"
    ):
        compare(changed(seeds=[1], base__rounds=16), "out", resume=True, progress=False)
    more = compare(changed(seeds=[0, 1]), "out", resume=True, progress=False)

    assert (folder / "out" / first.cells[0]["run"] / "result.json").stat().st_mtime_ns == ended
    assert [row["seeds"] for row in more.rows] == [2, 2]
    assert more.cells[2:] == first.cells
