from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from warm import Warm

_HERE = Path(__file__).resolve()

# How long an example takes depends on what else runs here.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


#: Tests run beside each other, and their arithmetic has one thread anyway.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share a Ray, or start whole clusters, in one process, beside which the others run."""
    for item in items:
        if "ray_session" in getattr(item, "fixturenames", ()) or item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture(autouse=True)
def _numerics() -> Iterator[None]:
    """Take back what a worker or a consensus in this process has set for good."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests' own: what the user's has must not decide what is tested."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def data_sets() -> Path:
    """The folder of the big data sets, as docs/data.md makes them; their absence skips the test, and says so."""
    folder = Path(os.environ.get("PISA_RAY_DATA", _HERE.parents[1] / "data"))
    if not (folder / "mnist" / "train.parquet").exists():
        pytest.skip(f"no MNIST in {folder}: make it with pisa-ray data, or set PISA_RAY_DATA")
    return folder


@pytest.fixture(scope="session")
def vectors() -> dict:
    """The reference numbers."""
    return json.loads((_HERE.parent / "algorithm" / "vectors.json").read_text())


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Warm]:
    """One Ray of our own for all tests that need one; its cores are logical, so that five workers fit.

    Processes are used again from run to run.
    """
    import ray
    from warm import Warm

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (else workers wait for whatever else runs here)
    ray.init(address="local", num_cpus=8, include_dashboard=False)
    warm = Warm()
    with pytest.MonkeyPatch.context() as monkeypatch:
        warm.install(monkeypatch)
        yield warm
        warm.close()
    ray.shutdown()


@pytest.fixture
def fresh_processes(ray_session: Warm) -> Iterator[None]:
    """Within a test, processes begin and end as they do for users."""
    ray_session.close()
    ray_session.keeps = False
    yield
    ray_session.keeps = True
