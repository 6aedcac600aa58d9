import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and data sets beside the checkout; its absence skips the test, and says so."""
    folder = Path(os.environ.get("PISA_RAY_SHARED", _HERE.parents[1].parent / "shared"))
    if not (folder / "vectors.json").exists():
        pytest.skip(f"no reference folder at {folder} (set PISA_RAY_SHARED)")
    return folder


@pytest.fixture(scope="session")
def vectors(shared: Path) -> dict:
    return json.loads((shared / "vectors.json").read_text())


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray of our own for all tests that need one; its cores are logical, so that five workers fit."""
    import ray

    ray.init(address="local", num_cpus=8, include_dashboard=False)
    yield
    ray.shutdown()
