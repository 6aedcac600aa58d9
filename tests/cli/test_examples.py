"""The examples: their settings are known, they say how to make their data, and they run."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest
import yaml
from usual_files import write_adult, write_mnist

from pisa_ray.cli.comparison import Spec
from pisa_ray.cli.config import load
from pisa_ray.cli.main import main
from pisa_ray.cli.search import Search
from pisa_ray.trainer.start import settled

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
#: With those of `compare` and `tune`.
ALL = sorted((ROOT / "examples").rglob("*.yaml"))


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_its_settings_are_known(example: Path) -> None:
    config = load(example)

    assert config.run.name == example.stem
    assert config.algorithm
    assert config.partition
    config = settled(config)
    assert config.sigma_schedule
    assert example.read_text().startswith("# ")


@pytest.mark.parametrize("example", ALL, ids=lambda path: path.stem)
def test_its_data_lie_in_the_checkout_where_its_first_lines_say_how_to_make_them(example: Path) -> None:
    text = example.read_text()
    read = {"compare": Spec.load, "tune": Search.load}.get(example.parent.name)
    assert read is None or read(example)
    values = yaml.safe_load(text)
    data = values.get("base", values)["data"]
    if data.get("dataset") == "digits":
        return
    for split in ("train", "test"):
        place = Path(os.path.normpath(example.parent / data[split])).relative_to(ROOT)  # data/ may be a link
        assert place.parts[0] == "data"
        assert place.name == f"{split}.parquet"
    name = place.parent.name.replace("_", "-")
    assert (
        f"# Data: `pisa-ray data {name} --from FOLDER --out {place.parent}/train.parquet`, the same for --split test"
        in text
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_on_data_made_as_it_says(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    copy = tmp_path / "examples" / example.name
    copy.write_text(example.read_text())
    write_mnist(tmp_path / "FOLDER")
    write_adult(tmp_path / "FOLDER")
    command = ["train", str(copy), "--set", "workers=0", "--set", "rounds=2", "--out", "run", "--quiet"]
    for split in ("train", "test"):
        if "dataset:" in example.read_text():
            break
        assert main(command) == 2
        said = capsys.readouterr().err
        assert f"data.{split} is " in said
        program, *making = shlex.split(re.findall(r"`(.*)`", said)[0])
        assert program == "pisa-ray"
        assert main(making) == 0
    assert main(command) == 0

    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["name"], result["status"], result["rounds"]) == (example.stem, "finished", 2)
    assert 0 <= result["test_accuracy"] <= 1
