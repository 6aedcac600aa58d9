"""A manifest whose hash fits is not believed for that: types, ranges and what must agree are looked at."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import run
from safetensors.torch import load_file, save_file

from pisa_ray.errors import ConfigError
from pisa_ray.trainer import checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a checkpoint of round 2."""
    result = run(tmp_path_factory.mktemp("saved") / "run", rounds=2)
    return Path(result.checkpoint)


def put(*path: str | int) -> Callable[[Any], Callable[[dict[str, Any]], None]]:
    """What puts a value at a place of a manifest."""

    def value(new: Any) -> Callable[[dict[str, Any]], None]:
        def change(manifest: Any) -> None:
            for key in path[:-1]:
                manifest = manifest[key]
            manifest[path[-1]] = new

        return change

    return value


inf, nan = float("inf"), float("nan")
CHANGES: list[tuple[tuple[str | int, ...], list[Any]]] = [
    (("progress", "sigma"), [-1, 0, True, "1", None, nan, inf, [1]]),
    (("progress", "round"), [-1, True, 2.0, 2.5, "2", 10**30, 3, 1, None]),
    (("progress", "memory"), [[], {"a": "x"}, {"a": True}, {"a": nan}, 5]),
    (("progress", "start"), [{"sigma": -1}, {"sigma": "x"}, {"sigma": None}, []]),
    (("progress", "first_loss"), ["x", None, True]),
    (("progress", "sample_gradients"), [-1, 1.5, True, "x"]),
    (("progress", "bytes_sent"), [-1, 1.5, True, "x"]),
    (("progress", "seconds"), [-1, nan, "x", True]),
    (("progress", "gradient_seconds"), [-1, inf, "x"]),
    (("progress", "best"), ["text", [], {"a": []}, {"a": "x"}]),
    (("progress", "exact"), [1, "true", None]),
    (("progress", "other"), [1]),
    (("progress", "changes"), [{}, [{}], [1], "x", [[]], [{"kind": "shard_removed"}]]),
    (
        ("progress", "changes"),
        [[{"kind": "shard_removed", "shard": shard, "round": 1, "rows": 5}] for shard in (-1, "0", True, 1.0, None)],
    ),
    (("progress", "changes"), [[{"kind": "shard_removed", "shard": 0, "round": 9, "rows": 5}]]),
    (("progress", "changes"), [[{"kind": "shard_added", "shard": 7, "round": 1, "rows": 5, "train": 5}]]),
    (("identity",), [[], "x", 5, None]),
    (("identity", "settings"), ["text", [], 5]),
    (("identity", "parameters"), ["text", [1], [["w"]], [[["w"], [1]]], [["w", ["x"]]], {"w": 1}]),
    (("identity", "data_sha256"), [5, [], True]),
    (("identity", "shards"), [-1, "7", 7.5, True]),
    (("environment",), [[], {"torch": []}, {"torch": None}, {"threads": inf}]),
    (("metrics",), [[], {"a": "x"}, {"a": None}, {"a": nan}, 5]),
    (("files",), [[], {}, 5]),
    (("files", "consensus"), [[], {}, "x"]),
    (("files", "consensus", "bytes"), [-1, True, 1.5, "5"]),
    (("files", "consensus", "file"), [5, None, ["a"]]),
    (("files", "consensus", "sha256"), [5, None]),
    (("files", "shards"), [{}, "x", [1], [{}]]),
    (("files", "shards", 0, "shards"), [[], {"x": {"version": 1, "reports": 1}}, {"0": 5}, {"0": {}}]),
    (("files", "shards", 0, "shards", "0", "version"), [inf, nan, -1, 1.5, True, "1", 3, None]),
    (("files", "shards", 0, "shards", "0", "reports"), [inf, -1, 1.5, True, "1", 10**30, None]),
    (("more",), [1]),
]


@pytest.mark.parametrize(("path", "values"), CHANGES, ids=[".".join(map(str, path)) for path, _ in CHANGES])
def test_a_manifest_with_a_wrong_type_or_range_is_refused(
    saved: Path, tmp_path: Path, path: tuple[str | int, ...], values: list[Any]
) -> None:
    folder = tmp_path / saved.name
    for value in values:
        shutil.copytree(saved, folder)
        manifest = json.loads((saved / "manifest.json").read_text())
        put(*path)(value)(manifest)
        (folder / "manifest.json").write_bytes(checkpoint._render(manifest))
        with pytest.raises(ConfigError, match=r"manifest.json is damaged: it is .*remove its folder"):
            checkpoint.latest(tmp_path)
        shutil.rmtree(folder)


def test_an_untouched_manifest_is_read(saved: Path) -> None:
    assert checkpoint.latest(saved.parent).progress.round == 2


def test_a_checkpoint_under_the_name_of_another_round_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / saved.name.replace("round-000002", "round-000009"))
    with pytest.raises(ConfigError, match="it is of another round than its folder"):
        checkpoint.latest(tmp_path)


@pytest.mark.parametrize(("file", "name"), [("consensus", "published"), ("shards-0", "3/dual")])
def test_a_nan_in_what_was_saved_is_named_and_nobody_is_told_to_change_sigma(
    saved: Path, tmp_path: Path, file: str, name: str
) -> None:
    path = Path(shutil.copytree(saved.parents[1], tmp_path / "run")) / "checkpoints" / saved.name
    tensors = {key: tensor.clone() for key, tensor in load_file(path / f"{file}.safetensors").items()}
    tensors[name][0] = nan
    save_file(tensors, path / f"{file}.safetensors")
    raw = (path / f"{file}.safetensors").read_bytes()
    manifest = json.loads((path / "manifest.json").read_text())
    entry = manifest["files"]["consensus"] if file == "consensus" else manifest["files"]["shards"][0]
    entry |= {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (path / "manifest.json").write_bytes(checkpoint._render(manifest))
    with pytest.raises(ConfigError, match=r"(not finite|a NaN in 3/dual): remove its folder") as refusal:
        run(tmp_path / "run", rounds=3, resume=True)
    assert "sigma" not in str(refusal.value)
