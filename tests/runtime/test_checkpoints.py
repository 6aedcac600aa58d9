"""Checkpoints that a run resumes from: refused when damaged or another run's, never unpickled, taken anywhere else."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from runs import METHODS, plain_net, run, trajectory, uneven
from safetensors.torch import load_file, save_file
from torch import nn

from pisa_ray import ConfigError, Data, Geometric, Indices, PisaError, PisaTrainer
from pisa_ray.engine.files import Folder
from pisa_ray.engine.flat_model import load_weights
from pisa_ray.trainer import checkpoint
from pisa_ray.trainer.run_directory import RunDirectory

EVEN = Indices(tuple(tuple(range(i, i + 60)) for i in range(0, 420, 60)))
DAMAGED = r"is missing or cut off|has been altered|is damaged|has format|cannot be read as safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three rounds with the checkpoints of the last two."""
    return run(tmp_path_factory.mktemp("base") / "run", rounds=3, checkpoint_every=1).path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash that its continuation to six rounds must end with."""
    return run(tmp_path_factory.mktemp("whole") / "run", rounds=6).weights_sha256


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def last(path: Path) -> Path:
    return checkpoint.latest(path / "checkpoints").path


def events(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def rewrite(folder: Path, change) -> None:
    """Change a manifest and make its own hash fit again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_bytes(checkpoint._render(manifest))


def entry_of(path: Path) -> dict:
    """The entry of a file as it is."""
    return {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


# Damage


@pytest.mark.parametrize("file", ["manifest.json", "consensus.safetensors", "shards-0.safetensors"])
def test_a_flipped_bit_anywhere_is_refused(copy, file):
    before, path = content(copy), last(copy) / file
    original = path.read_bytes()
    size = len(original)
    for position in sorted({0, 1, 9, size // 3, size // 2, size - 2, size - 1}):
        for bit in (0, 5):
            data = bytearray(original)
            data[position] ^= 1 << bit
            path.write_bytes(data)
            with pytest.raises(ConfigError, match=DAMAGED) as refusal:
                run(copy, rounds=6, resume=True)
            assert str(path.parent) in str(refusal.value)
    path.write_bytes(original)
    assert {k: v for k, v in content(copy).items() if k != "config.yaml"} == {
        k: v for k, v in before.items() if k != "config.yaml"
    }  # not even the old result is lost


@given(st.data())
def test_a_manifest_with_any_byte_changed_is_refused(base, data):
    raw = (last(base) / "manifest.json").read_bytes()
    position, byte = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 255))
    changed = raw[:position] + bytes([byte]) + raw[position + 1 :]

    class Fixed(Folder):
        def read(self, name):
            return changed

    if changed != raw:
        with pytest.raises(ConfigError, match=DAMAGED):
            checkpoint._read(Fixed("/somewhere"))


@pytest.mark.parametrize("file", ["manifest.json", "consensus.safetensors", "shards-0.safetensors"])
def test_truncation_is_refused(copy, file):
    path = last(copy) / file
    original = path.read_bytes()
    for size in (0, 7, len(original) // 2, len(original) - 1):
        path.write_bytes(original[:size])
        with pytest.raises(ConfigError, match=DAMAGED):
            run(copy, rounds=6, resume=True)
    path.write_bytes(original + b"\0")
    with pytest.raises(ConfigError, match=DAMAGED):
        run(copy, rounds=6, resume=True)


def test_an_older_checkpoint_is_taken_once_the_damaged_one_is_removed(copy, whole):
    (last(copy) / "consensus.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"consensus.safetensors is missing or cut off: remove this .* an older one"):
        run(copy, rounds=6, resume=True)
    shutil.rmtree(last(copy))
    assert checkpoint.latest(copy / "checkpoints").progress.round == 2
    assert run(copy, rounds=6, resume=True).weights_sha256 == whole


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("not JSON", r"manifest.json is damaged: it is not JSON"),
        ("[" * 100_000, r"manifest.json is damaged: it is not JSON"),
        ("[1]", r"manifest.json is damaged: it is not a manifest"),
        ("{}", "manifest.json is damaged: it is not a manifest"),
        ('{"format": 1}', rf"has format 1, but this version reads format {checkpoint.FORMAT}"),
        (f'{{"format": {checkpoint.FORMAT}}}', r"manifest.json has been altered"),
        (b"\xff\xfe", r"manifest.json is damaged: it is not JSON"),
    ],
)
def test_what_is_no_manifest_is_refused(copy, text, sentence):
    path = last(copy) / "manifest.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=sentence):
        run(copy, rounds=6, resume=True)


@pytest.mark.parametrize("key", ["progress", "identity", "environment", "metrics", "files"])
def test_a_manifest_without_a_part_is_refused(copy, key):
    folder = last(copy)
    rewrite(folder, lambda m: m.update({key: 3}))
    with pytest.raises(ConfigError, match=r"it is not a manifest"):
        run(copy, rounds=6, resume=True)
    rewrite(folder, lambda m: m.pop(key))
    with pytest.raises(ConfigError, match=r"it is not a manifest"):
        run(copy, rounds=6, resume=True)


@pytest.mark.parametrize("name", ["/etc/passwd", "../{other}/consensus.safetensors", "..", "", "a/b", "a\\b", 5])
def test_a_manifest_may_not_name_files_outside_its_folder(copy, name):
    _, other = sorted((copy / "checkpoints").iterdir(), key=lambda p: p.name, reverse=True)
    if isinstance(name, str):
        name = name.format(other=other.name)
    rewrite(last(copy), lambda m: m["files"]["consensus"].update(file=name))
    with pytest.raises(ConfigError, match=r"its files must lie in the folder itself|it is not a manifest"):
        run(copy, rounds=6, resume=True)


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        (
            "consensus",
            lambda t: t | {"published": t["published"][:-1]},
            r"has F32 \[2409\] for published.*F32 \[2410\]",
        ),
        ("consensus", lambda t: t | {"published": t["published"].double()}, r"has F64 .* needs F32"),
        ("consensus", lambda t: {"other": t["published"]}, "has nothing for published"),
        ("shards", lambda t: {k: v for k, v in t.items() if k != "3/dual"}, r"has nothing for 3/dual"),
        ("shards", lambda t: t | {"3/dual": torch.zeros(1)}, r"F32 \[1\] for 3/dual, but this run needs F32 \[2410\]"),
        ("shards", lambda t: t | {"3/extra": torch.zeros(1)}, r"for 3/extra, but this run needs nothing"),
    ],
)
def test_tensors_of_other_names_shapes_or_types_are_refused(copy, file, change, sentence):
    path = next(last(copy).glob(f"{file}*.safetensors"))
    save_file({k: v.clone() for k, v in change(load_file(path)).items()}, path)

    def refit(manifest):
        entry = manifest["files"]["consensus"] if file == "consensus" else manifest["files"]["shards"][0]
        entry.update(entry_of(path))

    rewrite(last(copy), refit)
    with pytest.raises(ConfigError, match=sentence):
        run(copy, rounds=6, resume=True)


def test_shards_must_all_be_there_once(copy):
    rewrite(last(copy), lambda m: m["files"]["shards"][0]["shards"].pop("2"))
    with pytest.raises(ConfigError, match="does not hold every shard's state once"):
        run(copy, rounds=6, resume=True)


def test_a_state_of_another_method_is_refused(copy):
    rewrite(last(copy), lambda m: m["files"]["shards"][0]["shards"]["2"].update(extra=1))
    with pytest.raises(ConfigError, match=r"does not fit shard 2 .*resume with the same method"):
        run(copy, rounds=6, resume=True)


# Other runs' checkpoints


def test_checkpoints_of_other_runs_are_refused(base, tmp_path):
    """A foreign checkpoint that lies in the run's folder is told by what differs."""
    others = {
        "other data or another partition": {"partition": EVEN},
        r"algorithm.sigma = 0.4, not 0.3": {"algorithm": type(METHODS["sisa"])(sigma=0.4, rho=30.0, lam=1e-3)},
        r"algorithm.kind = 'nsisa', not 'sisa'": {"algorithm": METHODS["nsisa"]},
        r"model parameters \(0.weight is \[16, 64\], not \[32, 64\]\)": {
            "model": lambda: nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        },
        r"seed = 1, not 0": {"seed": 1},
    }
    for number, (sentence, changes) in enumerate(others.items()):
        foreign = run(tmp_path / str(number), rounds=3, **changes).checkpoint
        copy = Path(shutil.copytree(base, tmp_path / f"copy-{number}"))
        for folder in (copy / "checkpoints").iterdir():
            shutil.rmtree(folder)
        shutil.copytree(foreign, copy / "checkpoints" / foreign.name)
        with pytest.raises(ConfigError, match=rf"was made with .*{sentence}"):
            run(copy, rounds=6, resume=True)


def test_swapped_data_are_refused(copy):
    with pytest.raises(ConfigError, match=r"data.test does not hold what the run was started with"):
        run(copy, rounds=6, resume=True, data=Data(train="digits", test="digits"))
    with pytest.raises(ConfigError, match=r"was started with partition"):
        run(copy, rounds=6, resume=True, partition=EVEN)


# Nothing is unpickled


class Gadget:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("entry", ["manifest.json", "consensus.safetensors", "shards-0.safetensors", "config.yaml"])
def test_nothing_is_unpickled_on_resume(copy, tmp_path, entry):
    marker = tmp_path / "marker"
    gadgets = [pickle.dumps(Gadget(marker))]
    torch.save(Gadget(marker), tmp_path / "gadget.pt")
    gadgets.append((tmp_path / "gadget.pt").read_bytes())
    pickle.loads(gadgets[0])  # noqa: S301  (it does what it should)
    assert marker.exists()
    marker.unlink()
    if entry == "config.yaml":
        gadgets = [yaml.dump({"seed": marker}).encode(), f"!!python/object/apply:os.mkdir [{marker}]".encode()]
    path = copy / entry if entry == "config.yaml" else last(copy) / entry
    for gadget in gadgets:
        path.write_bytes(gadget)
        if entry.endswith("safetensors"):

            def refit(manifest):
                files = manifest["files"]
                (files["consensus"] if entry.startswith("consensus") else files["shards"][0]).update(entry_of(path))

            rewrite(path.parent, refit)
        with pytest.raises(ConfigError):
            run(copy, rounds=6, resume=True)
        assert not marker.exists()


def test_nothing_is_unpickled_as_weights(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Gadget(marker)))
    with pytest.raises(ConfigError, match="cannot be read as safetensors"):
        load_weights(plain_net(), path)
    torch.save(Gadget(marker), path)
    with pytest.raises(ConfigError, match="cannot be read as safetensors"):
        load_weights(plain_net(), path)
    assert not marker.exists()


# Where it was computed


def test_another_environment_is_refused_unless_exact_is_false(copy, whole, capsys):
    rewrite(last(copy), lambda m: m["environment"].update(torch="1.0"))
    before = content(copy)
    with pytest.raises(ConfigError, match=r"torch 1.0, and goes on with .* set exact=False"):
        run(copy, rounds=6, resume=True)
    assert content(copy)["result.json"] == before["result.json"]
    result = run(copy, rounds=5, resume=True, exact=False, progress=True)
    assert "computed with torch 1.0, and goes on with" in capsys.readouterr().err
    assert result.metrics["exact"] is False
    assert [event["message"] for event in events(copy) if event["kind"] == "inexact"]
    again = run(copy, rounds=6, resume=True)  # nothing differs now, but the run stays what it is
    assert (again.metrics["exact"], again.weights_sha256) == (False, whole)


# One driver at a time


def test_a_second_driver_is_refused_and_touches_nothing(base, tmp_path, whole):
    path = Path(shutil.copytree(base, tmp_path / "run"))
    before, directory = content(path), RunDirectory(path)
    assert not directory.is_running()
    with RunDirectory(path).lock():
        assert directory.is_running()
        assert {k: v for k, v in content(path).items() if k != ".lock"} == before
        for resume in (True, False):
            with pytest.raises(ConfigError, match=rf"{path} is in use by the run of process {os.getpid()}: wait"):
                run(path, rounds=6, resume=resume)
        assert {k: v for k, v in content(path).items() if k != ".lock"} == before
    assert content(path) == before
    assert not directory.is_running()
    assert run(path, rounds=6, resume=True).weights_sha256 == whole
    assert content(path).keys() & {".lock"} == set()


# Going on elsewhere


def restore(path: Path, **changes) -> PisaTrainer:
    arguments = {
        "model": plain_net,
        "data": Data(train="digits", test="digits:test"),
        "partition": uneven(),
        "algorithm": METHODS["sisa"],
        "rounds": 6,
        "batch_size": 16,
        "evaluate_every": 3,
        "checkpoint_every": None,
        "scaling_config": 0,
        "progress": False,
        **changes,
    }
    return PisaTrainer.restore(path, sigma_schedule=Geometric(0.9, 2), **arguments)


def test_restore_goes_on_in_another_directory_three_times(base, tmp_path, whole):
    path = base
    for number, end in enumerate((4, 5, 6)):
        path = Path(shutil.copytree(path, tmp_path / str(number)))
        result = restore(path, rounds=end).fit()
    assert result.path == path
    assert result.weights_sha256 == whole
    assert trajectory(result)[-1]["round"] == 6


def test_restore_refuses_other_arguments_and_what_is_no_run(copy, tmp_path):
    with pytest.raises(ConfigError, match="batch_size = 16, not 8"):
        restore(copy, batch_size=8).fit()
    with pytest.raises(ConfigError, match=r"nothing holds no run to go on with: give a run directory"):
        restore(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


# Disks


def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(tmp_path, monkeypatch, whole):
    flush, left = os.fsync, [0]

    def full(handle):
        if os.readlink(f"/proc/self/fd/{handle}").endswith((".safetensors.part", ".manifest.json.part")):
            left[0] -= 1
            if left[0] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    monkeypatch.setattr(os, "fsync", full)
    run(tmp_path / "run", rounds=2, checkpoint_every=1)
    for after in (1, 2, 3, 5):
        left[0] = after
        with pytest.raises(PisaError, match=r"cannot be written \(.*No space left on device.*\); resume=True goes on"):
            run(tmp_path / "run", rounds=6, checkpoint_every=1, resume=True)
        assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"
        assert checkpoint.latest(tmp_path / "run" / "checkpoints").progress.round >= 2
        assert not list((tmp_path / "run").rglob("*.part"))
    assert run(tmp_path / "run", rounds=6, checkpoint_every=1, resume=True).weights_sha256 == whole


def test_a_torn_last_line_is_dropped(copy, whole):
    for name in ("metrics.jsonl", "events.jsonl"):
        with (copy / name).open("a") as file:
            file.write('{"round": 4, "ki')
    assert run(copy, rounds=6, resume=True).weights_sha256 == whole
    assert [event["kind"] for event in events(copy)][-1] == "finished"
