"""Checkpoints in an object store: an S3 server on this machine, and a file system that can neither move nor append."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from pyarrow import fs
from ray.train import CheckpointConfig, RunConfig
from runs import run

from pisa_ray import ConfigError, PisaError, PisaTrainer
from pisa_ray.cli.main import main
from pisa_ray.engine.files import Folder
from pisa_ray.trainer import checkpoint


class Store(fs.FileSystemHandler):
    """An object store over a local folder: objects appear whole when they are closed; no moves, no appends.

    Args:
        root: The local folder.
        room: Objects it takes until it is full.
    """

    def __init__(self, root: str, room: int | None = None) -> None:
        self.root, self.room = root, room
        self.local = fs.SubTreeFileSystem(root, fs.LocalFileSystem())

    def get_type_name(self) -> str:
        return "store"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths):
        return self.local.get_file_info(paths)

    def get_file_info_selector(self, selector):
        return self.local.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self.local.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self.local.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self.local.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise AssertionError("nobody may empty the store")

    def delete_file(self, path: str) -> None:
        self.local.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        raise AssertionError("object stores cannot move")

    def copy_file(self, src: str, dest: str) -> None:
        raise AssertionError("object stores copy slowly")

    def open_append_stream(self, path: str, metadata):
        raise AssertionError("object stores cannot append")

    def open_input_stream(self, path: str):
        return self.local.open_input_stream(path)

    def open_input_file(self, path: str):
        return self.local.open_input_file(path)

    def open_output_stream(self, path: str, metadata):
        if self.room is not None:
            self.room -= 1
            if self.room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.local.open_output_stream(path)


def store(root: Path, room: int | None = None) -> fs.PyFileSystem:
    root.mkdir(exist_ok=True)
    return fs.PyFileSystem(Store(str(root), room))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    return run(tmp_path_factory.mktemp("whole") / "run", rounds=6).weights_sha256


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a bucket on a server of our own."""
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import boto3

    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys).create_bucket(Bucket="bucket")
    yield f"s3://testing:testing@bucket/{{}}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    running.stop()


# Folder


@pytest.mark.parametrize("kind", ["local", "store", "s3"])
def test_a_folder_does_the_same_everywhere(tmp_path, kind, request):
    folder = {
        "local": lambda: Folder.of(tmp_path / "x"),
        "store": lambda: Folder.of("deep/x", store(tmp_path / "store")),
        "s3": lambda: Folder.of(request.getfixturevalue("s3").format("folder")),
    }[kind]()
    assert folder.folders() == []
    folder.create()
    below = folder / "below"
    below.create()
    tensors = {"a": torch.arange(5.0), "b": torch.ones(2, 3, dtype=torch.int64), "c": torch.arange(3.0).numpy()}
    entry = below.write_tensors("t.safetensors", tensors)
    below.check(entry)
    assert folder.folders() == ["below"]
    assert below.has("t.safetensors")
    assert not folder.has("t.safetensors")
    read = below.read_tensors(entry, lambda name: name != "a", {k: torch.as_tensor(tensors[k]) for k in ("b", "c")})
    assert set(read) == {"b", "c"}
    assert torch.equal(read["b"], tensors["b"])
    with pytest.raises(ConfigError, match=r"has F32 \[5\] for a, but this run needs I64 \[5\]"):
        below.read_tensors(entry, ["a"], {"a": torch.zeros(5, dtype=torch.int64)})
    with pytest.raises(ConfigError, match=r"has nothing for z"):
        below.read_tensors(entry, ["z"])
    below.write_json("v.json", {"x": [1, 2.5, None]})
    assert below.read_json("v.json") == {"x": [1, 2.5, None]}
    below.write("t.safetensors", b"12345678{}")
    with pytest.raises(ConfigError, match="missing or cut off"):
        below.check(entry)
    with pytest.raises(ConfigError, match="cannot be read as safetensors"):
        below.read_tensors(entry, ["a"])
    below.remove("t.safetensors")
    below.delete()
    assert not below.has("v.json")
    for name in ("..", "a/b", ""):
        with pytest.raises(ConfigError, match="must lie in the folder itself"):
            folder / name


def test_addresses_that_mean_nothing_are_refused_without_their_secrets():
    with pytest.raises(ConfigError, match=r"^nowhere://x/y cannot be opened") as refusal:
        Folder.of("nowhere://user:secret@x/y")
    assert "secret" not in str(refusal.value).split("(")[0]


# Runs


def ray_config(tmp_path: Path, **fields) -> RunConfig:
    return RunConfig(name="mine", storage_path="all/runs", storage_filesystem=store(tmp_path / "store"), **fields)


def test_checkpoints_go_to_the_store_and_the_rest_is_copied_there(tmp_path, in_a_folder_of_its_own, whole):
    keep = CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="test_accuracy")
    config = ray_config(tmp_path, checkpoint_config=keep)
    result = run(tmp_path, run_config=config, rounds=6, checkpoint_every=2, evaluate_every=1)
    stored = tmp_path / "store" / "all" / "runs" / "mine"
    assert result.weights_sha256 == whole
    assert result.path == in_a_folder_of_its_own / "runs" / "mine"
    assert not (result.path / "checkpoints").exists()
    small = {"config.yaml", "partition.json", "metrics.jsonl", "events.jsonl", "result.json", "model.safetensors"}
    assert {p.name for p in stored.iterdir()} == small | {"checkpoints"}
    assert all((stored / name).read_bytes() == (result.path / name).read_bytes() for name in small)
    assert len(list((stored / "checkpoints").iterdir())) in (1, 2)
    assert result.checkpoint.startswith("store://all/runs/mine/checkpoints/round-000006-")
    assert result.best_checkpoint.startswith("store://")


def test_a_run_goes_on_from_the_store_on_a_fresh_machine(tmp_path, in_a_folder_of_its_own, whole):
    config = ray_config(tmp_path)
    run(tmp_path, run_config=config, rounds=4, checkpoint_every=2, evaluate_every=1)
    shutil.rmtree(in_a_folder_of_its_own / "runs")
    with pytest.raises(ConfigError, match=r"store://all/runs/mine holds a run already: use resume=True"):
        run(tmp_path, run_config=config, rounds=6)
    resumed = run(tmp_path, run_config=config, rounds=6, checkpoint_every=2, evaluate_every=1, resume=True)
    assert resumed.weights_sha256 == whole
    assert [row["round"] for row in resumed.history] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ConfigError, match=r"checkpoint.storage = 'store://all/runs', not None"):
        run(in_a_folder_of_its_own / "runs" / "mine", rounds=8, resume=True)


def test_damage_in_the_store_is_refused_and_unfinished_attempts_are_cleared(tmp_path, whole):
    config = ray_config(tmp_path)
    run(tmp_path, run_config=config, rounds=3)
    checkpoints = tmp_path / "store" / "all" / "runs" / "mine" / "checkpoints"
    (half := checkpoints / "round-000009-00000000").mkdir()
    (half / "consensus.safetensors").write_bytes(b"half")
    file = next(checkpoints.glob("round-000003-*")) / "shards-0.safetensors"
    original = file.read_bytes()
    file.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(ConfigError, match=r"store://all/.*/shards-0.safetensors has been altered"):
        run(tmp_path, run_config=config, rounds=6, resume=True)
    file.write_bytes(original)
    assert run(tmp_path, run_config=config, rounds=6, resume=True).weights_sha256 == whole
    assert not half.exists()


def test_a_full_store_ends_the_run_and_keeps_the_last_checkpoint(tmp_path, in_a_folder_of_its_own):
    # A probe, then for each checkpoint three files and copies of three; there is no row yet.
    full = RunConfig(name="mine", storage_path="x", storage_filesystem=store(tmp_path / "store", room=8))
    with pytest.raises(PisaError, match=r"store://x/mine/checkpoints/round-000002-.*No space left on device"):
        run(tmp_path, run_config=full, rounds=6, checkpoint_every=1)
    result = json.loads((in_a_folder_of_its_own / "runs" / "mine" / "result.json").read_text())
    assert result["status"] == "failed"
    assert "No space left" in result["message"]
    kept = checkpoint.latest(Folder.of("x/mine/checkpoints", store(tmp_path / "store")))
    assert kept.progress.round == 1


def test_a_store_that_cannot_be_written_is_refused_before_round_1(tmp_path, in_a_folder_of_its_own):
    full = RunConfig(name="mine", storage_path="x", storage_filesystem=store(tmp_path / "store", room=0))
    with pytest.raises(ConfigError, match=r"the storage store://x/mine cannot be written \(.*No space left"):
        run(tmp_path, run_config=full)
    assert not (in_a_folder_of_its_own / "runs").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_workers_write_to_s3_and_another_machine_goes_on(s3, tmp_path, in_a_folder_of_its_own, whole):
    config = RunConfig(name="mine", storage_path=s3.format("some/where"))
    run(tmp_path, workers=2, run_config=config, rounds=3, checkpoint_every=2, evaluate_every=1)
    shutil.rmtree(in_a_folder_of_its_own / "runs")
    saved = checkpoint.latest(Folder.of(s3.format("some/where/mine/checkpoints")))
    assert saved.progress.round == 3
    assert len(saved.manifest["files"]["shards"]) == 2
    result = run(tmp_path, run_config=config, rounds=6, evaluate_every=1, resume=True)
    assert result.weights_sha256 == whole
    assert result.checkpoint.startswith("s3://bucket/some/where/mine/checkpoints/round-000006-")
    assert [row["round"] for row in result.history] == [1, 2, 3, 4, 5, 6]


CONFIG = """
data: {dataset: digits}
partition: {kind: iid, shards: 3}
model: {kind: mlp, hidden: [8]}
algorithm: {kind: sisa, sigma: 0.3, rho: 30}
workers: 0
evaluate_every: 2
"""


def test_the_command_line_and_restore_know_the_store(s3, in_a_folder_of_its_own, capsys):
    (in_a_folder_of_its_own / "c.yaml").write_text(CONFIG)
    place = s3.format("cli")
    more = ["--quiet", "--set", f"checkpoint={{every: 2, storage: '{place}'}}"]
    assert main(["train", "c.yaml", "--out", "out/one", "--set", "rounds=4", *more]) == 0
    straight = json.loads(Path("out/one/result.json").read_text())["weights_sha256"]
    assert main(["train", "c.yaml", "--out", "out/two", "--set", "rounds=2", *more]) == 0
    shutil.rmtree("out/two")
    capsys.readouterr()
    assert main(["train", "c.yaml", "--out", "out/two", "--set", "rounds=4", *more]) == 2
    assert "s3://bucket/cli/two holds a run already" in capsys.readouterr().err
    assert main(["train", "c.yaml", "--out", "out/two", "--set", "rounds=4", "--resume", *more]) == 0
    assert json.loads(Path("out/two/result.json").read_text())["weights_sha256"] == straight
    assert yaml.safe_load(Path("out/two/config.yaml").read_text())["checkpoint"]["storage"] == place
    with pytest.raises(ConfigError, match="holds no run to go on with"):
        PisaTrainer.restore(s3.format("cli/three"))
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("storage", "sentence"),
    [
        (
            "s3://testing:testing@bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1",
            "the storage s3://bucket/x/run",
        ),
        ("/x/y", "checkpoint.storage is '/x/y', but it must be a URI such as s3://bucket/prefix"),
        ("nowhere://x", "nowhere://x cannot be opened"),
    ],
)
def test_a_storage_that_cannot_be_reached_is_refused_in_one_sentence(in_a_folder_of_its_own, capsys, storage, sentence):
    (in_a_folder_of_its_own / "c.yaml").write_text(CONFIG)
    assert main(["train", "c.yaml", "--out", "run", "--set", f"checkpoint={{storage: '{storage}'}}"]) == 2
    shown = capsys.readouterr().err
    assert sentence in shown
    assert shown.count("\n") == 1
    assert not Path("run").exists()
