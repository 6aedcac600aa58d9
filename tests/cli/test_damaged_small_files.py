"""Files beside the checkpoints that somebody has damaged: named, set aside, and no reason to lose a run."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from runs import small_job
from safetensors.torch import load_file, save_file

from pisa_ray import SISA
from pisa_ray.cli.main import main
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.start import with_numbers

YAML = """data: {dataset: digits}
partition: {kind: iid, shards: 3}
model: {kind: mlp, hidden: [2]}
algorithm: {kind: sisa, sigma: 1, rho: 30}
batch_size: 8
evaluate_every: 1
checkpoint: {every: 2}
workers: 0
"""
SMALL = ("metrics.jsonl", "events.jsonl", "config.yaml", "partition.json", "result.json")
#: JSON of a wrong type, and what is none.
GARBAGE = [
    b"",
    b"\n\n",
    b"\xef\xbb\xbf{}\n",
    b"\0" * 300 + b"\n",
    b"[" * 100_000 + b"\n",
    b'{"a":' * 100_000 + b"\n",
    b"[1]\n",
    b"5\n",
    b"null\n",
    b'"text"\n',
    b'{"round": "x"}\n',
    b'{"round": 1e400, "kind": "resumed"}\n',
    b'{"round": -1, "kind": 5}\n',
    b'{"round": true, "kind": "shard_added"}\n',
    b'{"round": 1, "kind": "shard_removed", "shard": -4}\n',
    b'{"round": 2, "kind": "shard_removed", "shard": 77, "rows": 5}\n',
    b'{"round": 1, "consensus_move": "far", "train_loss": [1]}\n',
    b'{"round": ' + b"9" * 5000 + b"}\n",
    b'{"round": ' + b"9" * 400 + b', "kind": "x"}\n',
    b'{"shards": 3, "status": {}, "weights_sha256": 4}\n',
    b"<<<<<<< HEAD\n",
    b"\xff\xfe\xfa\n",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    (folder / "c.yaml").write_text(YAML)
    assert train(folder, folder / "run", 4) == 0
    return folder


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take long, so only the test of odd numbers has them."""
    if "odd_numbers" not in request.node.name:
        monkeypatch.setattr("pisa_ray.cli.report.figures.draw", lambda *_, **__: "<svg></svg>")


@pytest.fixture(scope="module")
def six(base: Path) -> str:
    """The hash that its continuation to six rounds must end with."""
    assert train(base, base / "whole", 6) == 0
    return digest(base / "whole")


def train(folder: Path, run: Path, rounds: int, *more: str) -> int:
    return main(["train", str(folder / "c.yaml"), "--out", str(run), "--set", f"rounds={rounds}", "--quiet", *more])


def digest(run: Path) -> str:
    return json.loads((run / "result.json").read_text())["weights_sha256"]


def lines(run: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (run / name).read_text().splitlines() if line.strip()]


def mended(run: Path) -> list[str]:
    return [event["message"] for event in lines(run, "events.jsonl") if event["kind"] == "mended"]


def copied(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base / "run", tmp_path / "run", symlinks=True))


def changed(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a line cut": lambda p: changed(p, lambda raw: raw.replace(b'{"', b"", 1)),
    "a byte flipped": lambda p: changed(p, lambda raw: raw.replace(b'"round"', b'"round\x82', 1)),
    "the last line flipped": lambda p: changed(p, lambda raw: raw[:-2] + b"]\n"),
    "a line of zeros": lambda p: changed(p, lambda raw: raw + b"\0" * 100 + b"\n"),
    "a merge": lambda p: changed(p, lambda raw: raw + b"<<<<<<< HEAD\n"),
    "deep": lambda p: changed(p, lambda raw: b"[" * 100_000 + b"\n" + raw),
    "an infinite number": lambda p: changed(p, lambda raw: raw + b'{"round": 1e400}\n'),
    "a huge round": lambda p: changed(p, lambda raw: b'{"round": ' + b"7" * 5000 + b"}\n" + raw),
    "a folder": lambda p: (p.unlink(), p.mkdir(), (p / "x").write_text("x")),
    "a link": lambda p: (p.unlink(), p.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl"])
def test_a_run_with_a_damaged_record_is_resumed_to_the_same_bits_and_tells_what_was_set_aside(
    base: Path, six: str, tmp_path: Path, name: str, damage: str
) -> None:
    run = copied(base, tmp_path)
    DAMAGES[damage](run / name)
    assert main(["report", str(run)]) == 0
    assert train(base, run, 6, "--resume") == 0
    assert digest(run) == six
    (message,) = mended(run)
    assert message.startswith(f"{name} was damaged")
    assert f"kept as {name}.damaged" in message
    assert (run / f"{name}.damaged").is_symlink() or (run / f"{name}.damaged").exists()
    rounds = [row["round"] for row in lines(run, "metrics.jsonl")]
    assert rounds == sorted(set(rounds))
    assert {4, 5, 6} <= set(rounds)  # the checkpoint has a copy of its own row
    assert main(["evaluate", str(run)]) == 0


def test_a_second_damage_is_set_aside_beside_the_first(base: Path, tmp_path: Path) -> None:
    run = copied(base, tmp_path)
    (run / "metrics.jsonl.damaged").write_text("of an earlier time")
    changed(run / "metrics.jsonl", lambda raw: b"x\n" + raw)
    assert train(base, run, 6, "--resume") == 0
    assert (run / "metrics.jsonl.damaged").read_text() == "of an earlier time"
    assert (run / "metrics.jsonl.damaged-2").read_bytes().startswith(b"x\n")


@pytest.mark.parametrize("content", [b"", b"\n\n \n", None], ids=["empty", "blank", "gone"])
def test_what_is_missing_of_the_records_is_no_damage(
    base: Path, six: str, tmp_path: Path, content: bytes | None
) -> None:
    run = copied(base, tmp_path)
    for name in ("metrics.jsonl", "events.jsonl"):
        (run / name).unlink()
        if content is not None:
            (run / name).write_bytes(content)
    assert train(base, run, 6, "--resume") == 0
    assert digest(run) == six
    assert mended(run) == []
    assert [row["round"] for row in lines(run, "metrics.jsonl")] == [4, 5, 6]


def test_blank_lines_and_a_byte_order_mark_do_no_harm(base: Path, tmp_path: Path) -> None:
    run = copied(base, tmp_path)
    changed(run / "metrics.jsonl", lambda raw: b"\xef\xbb\xbf" + raw.replace(b"\n", b"\r\n\n"))
    assert train(base, run, 6, "--resume") == 0
    assert mended(run) == []
    assert [row["round"] for row in lines(run, "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_evaluate_names_the_damaged_line_of_the_events(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(base, tmp_path)
    changed(run / "events.jsonl", lambda raw: raw + b"{]\n")
    number = len((run / "events.jsonl").read_bytes().splitlines())
    assert main(["evaluate", str(run)]) == 2
    assert f"events.jsonl is damaged in line {number}: remove that line, unless it told" in capsys.readouterr().err


def attempt(base: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> list[int]:
    """All that reads a run directory: a status and a sentence each, whatever is there."""
    ends = []
    for command in (["report", str(run)], ["evaluate", str(run)], None):
        ends.append(train(base, run, 6, "--resume") if command is None else main(command))
        error = capsys.readouterr().err
        assert ends[-1] in (0, 1, 2)
        assert (ends[-1] == 0) or error.startswith("pisa-ray: ")
        assert error.count("\n") <= 1
        assert "raceback" not in error, error
    return ends


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_in_the_small_files_is_a_sentence_or_nothing(
    base: Path, six: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], garbage: bytes
) -> None:
    run = copied(base, tmp_path)
    for name in ("metrics.jsonl", "events.jsonl", "partition.json", "result.json"):
        (run / name).write_bytes(garbage)
    *_, resumed = attempt(base, run, capsys)
    assert resumed == 0
    assert digest(run) == six
    (run / "config.yaml").write_bytes(garbage)
    assert train(base, run, 6, "--resume") == 2
    assert capsys.readouterr().err.startswith("pisa-ray: ")


@pytest.mark.parametrize("name", [*SMALL, "model.safetensors", ".lock", "checkpoints"])
@pytest.mark.parametrize("what", ["folder", "pipe", "loop", "nowhere"])
def test_something_else_in_a_files_place_is_a_sentence_or_nothing(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, what: str
) -> None:
    run = copied(base, tmp_path)
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    match what:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path.name)
        case "nowhere":
            path.symlink_to(tmp_path / "nowhere")
    attempt(base, run, capsys)
    assert not (tmp_path / "nowhere").exists()


def fuzzed(raw: bytes, draw: random.Random) -> bytes:
    """A small file as an accident or somebody may leave it."""
    at = draw.randrange(len(raw) + 1)
    match draw.randrange(6):
        case 0:
            return raw[:at]
        case 1:
            return draw.randbytes(draw.randrange(200))
        case 2:
            return raw[:at] + draw.randbytes(draw.randrange(1, 20)) + raw[at:]
        case 3:
            return draw.choice(GARBAGE)
        case 4:
            some = [b"null", b"-1", b"1e400", b"[]", b"{}", b'"x"', b"true", b"1.5", b"9" * 400]
            parts = raw.split(b", ")
            place = draw.randrange(len(parts))
            key, colon, _ = parts[place].partition(b": ")
            parts[place] = key + colon + draw.choice(some)
            return b", ".join(parts)
    out = bytearray(raw)
    for _ in range(draw.randrange(1, 4)):
        out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    return bytes(out)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_any_damage_of_any_small_file_is_a_sentence_or_nothing(
    base: Path, six: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    draw = random.Random(seed)
    for case in range(300 if seed else 15):
        run = copied(base, tmp_path / str(case))
        for name in draw.sample(SMALL, draw.choice([1, 1, 2])):
            (run / name).write_bytes(fuzzed((run / name).read_bytes(), draw))
        *_, resumed = attempt(base, run, capsys)
        assert resumed or digest(run) == six
        shutil.rmtree(tmp_path / str(case))


def test_a_report_draws_what_it_can_of_odd_numbers(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(base, tmp_path)
    row = lines(run, "metrics.jsonl")[0]
    odd = [1e308, -1e308, 10**400, -(10**400), 1e-320, 0, -0.0, 1e99, -1e99, 5e-324, True, None, "x", [1], {"a": 1}]
    keys = [key for key in row if key != "round"]
    rows = [row | {"round": at, **{key: odd[(at + k) % len(odd)] for k, key in enumerate(keys)}} for at in range(40)]
    rows += [row | {"round": value} for value in odd]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = {"0": 10**400, "1": 1e308, "2": -5, "x" * 3000: 3, "\x1b]0;": 2}
    shards = [{"rows": value, "labels": labels if k % 2 else value} for k, value in enumerate(odd)]
    (run / "partition.json").write_text(json.dumps({"shards": shards}))
    (run / "result.json").write_text(json.dumps({key: odd[k % len(odd)] for k, key in enumerate(row)}))
    assert main(["report", str(run)]) == 0, capsys.readouterr().err
    assert "<svg" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    "name", [".lock", "config.yaml", "metrics.jsonl", "events.jsonl", "result.json", "partition.json"]
)
def test_nothing_is_written_through_a_link_in_a_run_directory(base: Path, tmp_path: Path, name: str) -> None:
    run, victim = copied(base, tmp_path), tmp_path / "victim"
    victim.write_bytes((run / name).read_bytes() if (run / name).exists() else b"precious")
    before = victim.read_bytes()
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    (run / "report.html").symlink_to(victim)
    (run / "model.safetensors").unlink()
    (run / "model.safetensors").symlink_to(victim)
    assert train(base, run, 6, "--resume") == (2 if name == ".lock" else 0)
    assert main(["report", str(run)]) == 0
    assert victim.read_bytes() == before


def test_a_folder_of_checkpoints_that_is_a_link_is_refused(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(base, tmp_path)
    (run / "checkpoints").rename(tmp_path / "elsewhere")
    (run / "checkpoints").symlink_to(tmp_path / "elsewhere")
    before = sorted(p.name for p in (tmp_path / "elsewhere").iterdir())
    assert train(base, run, 6, "--resume") == 2
    assert "checkpoints is a symbolic link" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "elsewhere").iterdir()) == before


def test_evaluate_refuses_another_model_and_prints_null_for_nan(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(base, tmp_path)
    tensors = {name: tensor * float("nan") for name, tensor in load_file(run / "model.safetensors").items()}
    save_file(tensors, run / "model.safetensors")
    assert main(["evaluate", str(run), "--json"]) == 2
    assert "the model was altered, or is another run's" in capsys.readouterr().err
    (run / "result.json").write_text("[]")
    assert main(["evaluate", str(run), "--json"]) == 2
    assert "result.json holds no results: remove it" in capsys.readouterr().err
    (run / "result.json").unlink()
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    out = capsys.readouterr().out
    assert "NaN" not in out
    assert json.loads(out)["test"]["loss"] is None


def test_a_config_that_is_cut_off_is_damaged_and_no_other_setting(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(base, tmp_path)
    whole = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(whole[: whole.index("\n", 30) + 1])
    assert train(base, run, 6, "--resume") == 2
    assert "config.yaml of the run is damaged: it has no rounds: put a copy of the file" in capsys.readouterr().err


def test_a_checkpoint_that_sets_what_the_method_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="the checkpoint sets foo, which SISA does not have"):
        with_numbers(replace(small_job(), method=SISA(sigma=1.0, rho=1.0)), {"foo": 1.0})
