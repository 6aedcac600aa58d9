"""A run has the same bits compiled and operation by operation, wherever and whenever it changes over."""

from __future__ import annotations

import pytest
from runs import run

from pisa_ray.algorithm import compiled


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The hash of a run that never compiles, and a cache with what it needs."""
    plain = run(tmp_path_factory.mktemp("plain") / "run", method="nsisa", compiled=False)
    with pytest.MonkeyPatch.context() as own:
        own.setattr(compiled, "_known", {})
        compiled.use(True)
        run(
            tmp_path_factory.mktemp("first") / "run", method="nsisa", compiled=True, rounds=2
        )  # the last is diagnosed, operation by operation
        assert compiled.wait(600)
        compiled.use(None)
    return plain.metrics["weights_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers(tmp_path, made, ray_session, monkeypatch, workers):
    monkeypatch.setattr(compiled, "_known", {})  # without the kernels that other tests of this process met
    result = run(tmp_path / "run", method="nsisa", workers=workers)
    assert result.metrics["weights_sha256"] == made
    if not workers:
        assert compiled._known
        assert all(one.code is not None for one in compiled._known.values())


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_a_resume_in_the_other_way(tmp_path, made, first):
    run(tmp_path / "run", method="nsisa", rounds=4, compiled=first)
    result = run(tmp_path / "run", method="nsisa", compiled=not first, resume=True)
    assert result.metrics["weights_sha256"] == made


@pytest.mark.slow
def test_a_change_over_in_mid_run(tmp_path, made, monkeypatch):
    """The code is there from the 29th piece of w on that it is asked for."""
    ready, asked = compiled._Compiling.ready, []

    def late(self, entries):
        asked.append(entries)
        return ready(self, entries) if len(asked) > 28 else None

    monkeypatch.setattr(compiled._Compiling, "ready", late)
    assert run(tmp_path / "run", method="nsisa").metrics["weights_sha256"] == made
    assert len(asked) > 40
