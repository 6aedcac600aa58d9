"""The examples: their settings are known, their data exist, and they run."""

import json
import re
from pathlib import Path

import pytest

from pisa_ray.cli.config import load, note_planned_rounds
from pisa_ray.cli.main import main

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def data_settings(example: Path, shared: Path) -> list[str]:
    """Overrides that point an example to the reference folder, wherever that is."""
    named = re.findall(r"^  (train|test): \S*/shared/(\S+)$", example.read_text(), re.MULTILINE)
    return [f"data.{key}={shared / place}" for key, place in named]


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_its_settings_are_known(example: Path) -> None:
    config = load(example)

    assert config.name == example.stem
    config.algorithm.build()
    config.partition.build()
    note_planned_rounds(config)
    config.sigma_schedule.build()
    assert example.read_text().startswith("# ")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(example: Path, shared: Path, tmp_path: Path) -> None:
    settings = [*data_settings(example, shared), "workers=0", "rounds=2"]
    config = load(example, settings)
    places = [place for place in (config.data.train, config.data.test) if place is not None]
    assert all(Path(place).exists() for place in places)
    assert places or config.data.dataset == "digits"

    options = [part for setting in settings for part in ("--set", setting)]
    assert main(["train", str(example), *options, "--out", str(tmp_path / "run"), "--quiet"]) == 0

    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["name"], result["status"], result["rounds"]) == (example.stem, "finished", 2)
    assert 0 < result["test_accuracy"] < 1
