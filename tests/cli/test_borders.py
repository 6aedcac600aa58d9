"""What the libraries below raise, and whoever reads what is printed: a sentence each, and never a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pisa_ray.cli.main import main

YAML = """data: {dataset: digits}
partition: {kind: iid, shards: 2}
model: {kind: mlp, hidden: [2]}
algorithm: {kind: sisa, sigma: 1, rho: 30}
rounds: 1
batch_size: 8
workers: 0
"""


def train(text: str | bytes, *more: str) -> int:
    Path("c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    return main(["train", "c.yaml", "--quiet", "--out", "run", *more])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error, which is not a last resort."""
    error = capsys.readouterr().err
    assert error.startswith("pisa-ray: "), error
    assert error.count("\n") == 1, error
    assert "raceback" not in error, error
    assert len(error) < 1500
    return error


BAD_YAML = {
    "name: 2026-02-30": "2026-02-30 is not a date in line 8",
    "name: 2026-13-01": "2026-13-01 is not a date in line 8",
    "name: 2026-01-01 25:61:61": "is not a date in line 8",
    "name: 2026-01-01": "name is 2026-01-01, but it must be text in quotes",
    "seed: 2026-01-01": "seed is 2026-01-01, but it must be a whole number",
    "seed: !!int x": "x is not a whole number in line 8",
    "seed: !!int ''": "is not a whole number in line 8",
    "seed: !!int [1]": "in line 8",
    "seed: !!float x": "x is not a number in line 8",
    "seed: !!float": "is not a number in line 8",
    "name: !!timestamp x": "x is not a date in line 8",
    "name: !!bool x": "x is not true or false in line 8",
    "name: !!set {a}": "2002:set' in line 8",
    "name: !!binary '//8='": "binary",
    "name: !!omap [a: 1]": "omap",
    "name: !!python/object/apply:os.getcwd []": "python/object",
    "name: !mine x": "!mine",
    "seed: " + "9" * 6000: "is not a whole number in line 8",
    "seed: 0x" + "f" * 6000: "a number is too large in line 8",
    "seed: " + "9" * 400: "a number is too large in line 8",
    "seed: 1e400": "seed is inf, but it must be",
    "clip_norm: 1e400": "clip_norm is inf, but it must be a finite number",
    "clip_norm: .nan": "clip_norm is nan, but it must be",
    "name: " + "[" * 5000: "nested too deeply",
    "model: " + "{a: " * 3000: "nested too deeply",
    "model: {args: " + "[" * 60 + "]" * 60 + "}": "nested too deeply",
    r'name: "a\0b"': "a character that no text can have, such as NUL, in line 8",
    r'name: "\ud800"': "a character that no text can have, such as NUL, in line 8",
    r'data: {train: "a\0b", input: a, label: b}': "such as NUL, in line 8",
    "name: a\0b": "a character that no text can have, number 0, in line 8",
    "name: a\x1bb": "a character that no text can have, number 27, in line 8",
    "name: a\ud800": "not text in UTF-8",
    "1: 2": "the key 1 is not text",
    "on: true": "the key true is not text",
    "? \n: 2": "the key null is not text",
    "? [a, b]\n: 2": "a key is not text in line 8",
    "1.5: 2": "the key 1.5 is not text",
    "2026-01-01: 2": "the key 2026-01-01 is not text",
    "stop: {1: 2}": "the key 1 in stop is not text",
    "name: a\nname: b": "the key name is there twice in line 9",
    "stop: {seconds: 1, seconds: 2}": "the key seconds is there twice in line 8",
    "model: &a {kind: mlp, args: {x: *a}}": "an alias stands for a part of itself",
    "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    + "\n".join(f"{b}: &{b} [{','.join(['*' + a] * 10)}]" for a, b in zip("abcdefg", "bcdefgh", strict=True)): "values",
    "model: {factory: 'sys:exit'}": "sys is a part of Python",
    "model: {factory: leaves:build}": "leaves:build",
    "model: {factory: 'nowhere:build'}": "No module named 'nowhere'",
    "model: {factory: ':'}": "must be 'package.module:function'",
    "model: {factory: '..:x'}": "must be 'package.module:function'",
    "data: {train: " + "x" * 5000 + ", input: a, label: b}": "but there is no such file or folder",
    "data: {train: /proc/self/mem, input: a, label: b}": "cannot be read as a Parquet file",
    "data: {train: /dev/null, input: a, label: b}": "/dev/null",
    "model: {kind: mlp, weights: " + "x" * 5000 + "}": "but there is no such file",
    "model: {kind: mlp, weights: /proc/self/mem}": "cannot be read as safetensors",
    "asynchronous: {replay: " + "x" * 5000 + "}": "asynchronous.replay is",
    "asynchronous: {replay: deep.json}": "asynchronous.replay is",
    "asynchronous: {replay: .}": "asynchronous.replay is",
}


@pytest.mark.parametrize("line", BAD_YAML, ids=[line[:30] for line in BAD_YAML])
def test_yaml_that_cannot_be_is_one_sentence_and_writes_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (here / "leaves.py").write_text("raise SystemExit(0)\n")
    (here / "deep.json").write_text("[" * 100_000 + "\n")
    key = line.partition(":")[0]
    rest = [at for at in YAML.splitlines() if at.partition(":")[0] != key]
    filler = [f"# {key}"] if len(rest) == 6 else []
    assert train("\n".join([*filler, *rest, line, ""])) == 2
    assert BAD_YAML[line] in refusal(capsys)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe\x00", b"\x80abc", YAML.encode("utf-16"), b"", b"# nothing\n", b"- a\n", b"5"]
)
def test_what_is_no_yaml_is_one_sentence(capsys: pytest.CaptureFixture[str], raw: bytes) -> None:
    assert train(raw) == 2
    assert "c.yaml" in refusal(capsys)


@pytest.mark.parametrize(
    "setting", ["seed=!!int x", "name=2026-02-30", "seed=" + "9" * 6000, "name=" + "[" * 5000, "a=\0"]
)
def test_settings_are_read_like_the_file(capsys: pytest.CaptureFixture[str], setting: str) -> None:
    assert train(YAML, "--set", setting) == 2
    refusal(capsys)


@pytest.mark.parametrize("path", ["x" * 5000, "x" * 300, "a\0b", "a/" * 3000, "\udcff" * 300])
@pytest.mark.parametrize("command", ["train", "out", "evaluate", "report", "resize", "tune", "compare", "shards"])
def test_paths_that_cannot_be_are_one_sentence(capsys: pytest.CaptureFixture[str], command: str, path: str) -> None:
    Path("c.yaml").write_text(YAML)
    more = {"out": ["train", "c.yaml", "--out", path], "resize": ["resize", path, "2"]}
    more["shards"] = ["shards", path, "--remove", "1"]
    if (command, path) == ("out", "a\0b"):
        with pytest.raises(SystemExit, match="2"):
            main(more["out"])
        return
    assert main(more.get(command, [command, path])) == 2
    assert "cannot be a path" in refusal(capsys)


def mangled(text: str, draw: random.Random) -> bytes:
    """A configuration as an accident or somebody may leave it."""
    odd = [
        "!!int x",
        "!!float",
        "2026-02-30",
        "'\\0'",
        '"\\ud800"',
        "~",
        "{}",
        "[]",
        "*a",
        "&a [*a]",
        "-1",
        "1e999",
        ".nan",
    ]
    odd += [
        "true",
        "0o17",
        "1:99:99",
        "{1: 2}",
        "9" * 5000,
        "[" * 500,
        "!!python/name:os.system",
        "? x",
        "|",
        "% x",
        "\t",
        "<<: 3",
    ]
    lines = text.splitlines()
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(lines))
        key, _, value = lines[at].partition(": ")
        match draw.randrange(5):
            case 0:
                lines[at] = f"{key}: {draw.choice(odd)}"
            case 1:
                lines[at] = f"{draw.choice(odd)}: {value}"
            case 2:
                inner = re.split(r"([:,{}\[\] ]+)", lines[at])
                inner[draw.randrange(len(inner))] = draw.choice(odd)
                lines[at] = "".join(inner)
            case 3:
                lines.insert(at, f"x{at}: {draw.choice(odd)}")
            case 4:
                cut = draw.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:cut] + draw.choice(odd) + lines[at][cut:]
    raw = bytearray("\n".join([*lines, ""]).encode())
    if draw.random() < 0.3:
        raw[draw.randrange(len(raw))] = draw.randrange(256)
    return bytes(raw)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_any_yaml_runs_or_is_one_sentence(capsys: pytest.CaptureFixture[str], seed: int) -> None:
    draw = random.Random(seed)
    for case in range(300 if seed else 30):
        raw = mangled(YAML, draw)
        Path("c.yaml").write_bytes(raw)
        status = main(["train", "c.yaml", "--quiet", "--out", f"run{case}", "--set", "rounds=1", "--set", "workers=0"])
        if status:
            assert status == 2, raw
            refusal(capsys)
            assert not Path(f"run{case}").exists(), raw
        capsys.readouterr()


# The last resort


@pytest.mark.parametrize(
    "error", [RecursionError("deep"), SystemExit(0), MemoryError(), KeyError("x"), ValueError("a\nb")]
)
def test_an_error_that_nobody_expected_is_one_sentence_and_a_traceback_in_a_file(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("pisa_ray.cli.main.load", fails)
    assert main(["train", "c.yaml"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    found = re.search(r"pisa-ray: (\w+).*; this error was not expected: its traceback is in (.*)\.\n", said)
    assert found is not None
    assert found[1] == type(error).__name__
    assert "Traceback (most recent call last)" in Path(found[2]).read_text()
    assert Path(found[2]).stat().st_mode & 0o077 == 0


def test_where_no_file_can_be_written_the_traceback_is_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(**_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr("tempfile.mkstemp", full)
    monkeypatch.setattr("pisa_ray.cli.main.load", lambda *_, **__: 1 / 0)
    assert main(["train", "c.yaml"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.splitlines()[-1].startswith("pisa-ray: ZeroDivisionError")


# What is printed


@pytest.mark.parametrize(
    "evil", ["\x1b]0;owned\x07", "\x9b31m", "\u202etxt", "\u2066x", "a\rb", "\x1b[2J", "\x08\x08", "\u2028"]
)
def test_control_characters_are_shown_and_do_nothing(capsys: pytest.CaptureFixture[str], evil: str) -> None:
    quoted = json.dumps(evil)
    for line in (f"{quoted}: 1", f"model: {{kind: {quoted}}}", f"data: {{train: {quoted}, input: a, label: b}}"):
        key = line.partition(":")[0]
        text = "\n".join([*(at for at in YAML.splitlines() if at.partition(":")[0] != key), line, ""])
        assert train(text) == 2
        assert main(["evaluate", evil]) == 2
        assert main(["train", "c.yaml", "--set", f"{evil}=1"]) == 2
        with pytest.raises(SystemExit):
            main([evil])
        said = capsys.readouterr()
        assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", said.err + said.out)


class Broken(io.StringIO):
    """A stream that nobody reads, or that is full."""

    def __init__(self, error: OSError | ValueError) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error


ENDS = [
    BrokenPipeError(32, "Broken pipe"),
    OSError(28, "No space left on device"),
    ValueError("closed file"),
    OSError(5, "EIO"),
]


@pytest.mark.parametrize("error", ENDS)
def test_a_run_needs_no_reader(error: OSError | ValueError) -> None:
    Path("c.yaml").write_text(YAML)
    with contextlib.redirect_stderr(Broken(error)), contextlib.redirect_stdout(Broken(error)):
        assert main(["train", "c.yaml", "--out", "run", "--set", "evaluate_every=1", "--set", "rounds=2"]) == 0
        assert main(["train", "nowhere.yaml"]) == 2
        status = main(["evaluate", "run"])
    assert status == (0 if isinstance(error, BrokenPipeError) else 1)  # its answer is lost
    assert json.loads(Path("run/result.json").read_text())["status"] == "finished"


def test_streams_that_are_closed_or_left_or_ascii_end_no_run(here: Path) -> None:
    """In real processes, side by side."""
    (here / "c.yaml").write_text(YAML + "evaluate_every: 1\n")
    command = f"{sys.executable} -m pisa_ray train c.yaml --set rounds=2 --out"
    ends = {
        "closed": f"{command} closed >&- 2>&- <&-",
        "été": f"LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 PYTHONIOENCODING=ascii {command} été | true; "
        "exit ${PIPESTATUS[0]}",
    }
    going = {
        name: subprocess.Popen(["bash", "-c", line], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name, line in ends.items()
    }
    for name, process in going.items():
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, (name, err)
        assert b"Traceback" not in out + err, (name, err)
        assert b"Exception ignored" not in out + err, (name, err)
        assert json.loads((here / name / "result.json").read_text())["status"] == "finished"
