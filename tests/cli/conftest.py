"""Configuration files, read and run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from config_files import SMALLEST, Load
from quick_runs import CONFIG, MODELS

from pisa_ray.cli.config import Config, check_places, load


@pytest.fixture
def read(tmp_path: Path) -> Load:
    """Loads settings on top of the smallest file, or another file's text."""

    def load_text(*settings: str, text: str = SMALLEST, look: bool = False) -> Config:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        config = load(path, list(settings))
        if look:
            check_places(config)
        return config

    return load_text


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The configuration file, in a folder that is also the current one and holds quick_models.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "quick_models.py").write_text(MODELS)
    path = tmp_path / "quick.yaml"
    path.write_text(CONFIG)
    yield path
    sys.modules.pop("quick_models", None)


@pytest.fixture
def table(config: Path) -> Path:
    """Twenty rows in a Parquet file beside the configuration."""
    path = config.parent / "rows.parquet"
    values = pa.array(np.arange(40.0).reshape(20, 2).tolist(), pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"x": values, "y": np.arange(20) % 2}), path)
    return path
