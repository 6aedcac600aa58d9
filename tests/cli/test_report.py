"""The report page, on small made-up run directories: they test the page, not any result."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from pisa_ray.cli.report import write_report
from pisa_ray.cli.report.figures import thin
from pisa_ray.errors import ConfigError

HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "link", "br", "hr", "img", "input"}
SHARDS = [{"rows": 30, "labels": {"cat": 20, "dog": 10}}, {"rows": 25, "labels": {"dog": 25}}]


def row(at: int, **changes: Any) -> dict[str, Any]:
    fade = math.exp(-at / 10)
    values: dict[str, Any] = {"round": at, "seconds": 0.5 * at, "train_loss": 2 * fade + 0.01}
    values |= {"test_loss": 2 * fade + 0.02, "test_accuracy": 1 - 0.9 * fade, "sigma": 1.1**at}
    values |= {"primal_residual": fade, "dual_residual": fade, "consensus_residual": fade, "consensus_move": fade}
    values |= {"augmented_lagrangian": 2 * fade, "momentum": 0.9, "workers": 2, "shards_reporting": 2}
    values |= {"sample_gradients": 64 * at, "worst_shard_loss": 3 * fade, "bytes_sent": 1000 * at}
    return values | changes


def few(at: int) -> dict[str, Any]:
    """A row with little to draw, for the tests that are not about figures: drawing is what takes time."""
    return {key: row(at)[key] for key in ("round", "seconds", "test_accuracy", "workers")}


def make_run(
    path: Path,
    name: str = "little run",
    *,
    rows: list[dict[str, Any]] | None = None,
    result: dict[str, Any] | None = None,
    events: list[dict[str, Any]] | None = None,
    shards: list[dict[str, Any]] | None = None,
    config: dict[str, Any] | None = None,
    without: tuple[str, ...] = (),
) -> Path:
    """A whole run directory, less the files named in `without`."""
    rows = [few(at) for at in range(1, 31)] if rows is None else rows
    whole = {"status": "finished", "name": name, "rounds": 30, "seconds": 15.0, "gradient_seconds": 9.0}
    whole |= {key: value for key, value in (rows[-1] if rows else {}).items() if key not in whole}
    whole |= {"best_test_accuracy": 0.9876, "weights_sha256": "abcdef" + "0" * 58}
    one = {
        "time": "2025-01-02T03:04:05+00:00",
        "round": 1,
        "kind": "worker_started",
        "worker": 0,
        "pid": 77,
        "node": "n1",
    }
    files = {
        "config.yaml": yaml.safe_dump({"name": name, "seed": 0, "rounds": 40, **(config or {})}),
        "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in rows),
        "result.json": json.dumps(whole | (result or {})),
        "events.jsonl": "".join(json.dumps(line) + "\n" for line in ([one] if events is None else events)),
        "partition.json": json.dumps({"shards": SHARDS if shards is None else shards}),
    }
    path.mkdir(parents=True)
    for file, text in files.items():
        if file not in without:
            (path / file).write_text(text, encoding="utf-8")
    return path


class Checker(HTMLParser):
    """Checks nesting, and collects tags, ids, words and what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.names: list[str] = []
        self.words: list[str] = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            assert not key.startswith("on")
            if key == "id":
                self.ids.append(value or "")
            elif key in {"src", "href", "xlink:href", "srcset", "action"}:
                self.loads.append(value or "")
            elif key == "aria-label":
                self.names.append(value or "")
        if tag == "svg":
            assert {"aria-label", "aria-hidden"} & dict(attrs).keys()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def check(page: Path) -> tuple[Checker, str]:
    """Parses a page and asserts what holds for all pages; returns what was found and the visible text."""
    text = page.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    assert "script" not in checker.tags
    assert all(load.startswith(("#", "data:image/png;base64,")) for load in checker.loads)
    assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", text))
    assert "@import" not in text
    assert len(checker.ids) == len(set(checker.ids))
    assert {load[1:] for load in checker.loads if load.startswith("#")} <= set(checker.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(checker.ids)
    assert set(re.findall(r"var\((--\w+)\)", text)) <= set(re.findall(r"(--\w+):", text))
    return checker, " ".join(" ".join(checker.words).split())


def test_whole_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows=[row(at) for at in range(1, 31)])
    page = write_report([run])
    assert page == run / "report.html"
    checker, text = check(page)
    assert "little run" in text
    assert "98.76 %" in text  # the best accuracy, from the result
    assert "30 %" in text  # the gradient share: 9 s of two workers' 15 s
    assert "of 40" in text
    assert 'title="abcdef' + "0" * 58 in page.read_text(encoding="utf-8")
    assert "seed: 0" in text
    assert "worker_started" in text
    assert "cat" in text
    assert "2 shards, 55 rows, 2 labels" in text
    for title in ("Accuracy", "Loss", "Penalty sigma", "Primal residual", "Dual residual", "Consensus move"):
        assert any(name.startswith(title) for name in checker.names)
    assert "Not recorded" not in text
    assert page.stat().st_size < 200_000


def test_the_period_is_drawn_where_it_was_chosen(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows=[few(at) | {"k0": 10 if at < 9 else 30} for at in range(1, 31)])
    assert "Period k0" in write_report([run], tmp_path / "a.html").read_text(encoding="utf-8")
    plain = make_run(tmp_path / "plain")
    assert "Period k0" not in write_report([plain], tmp_path / "b.html").read_text(encoding="utf-8")


def test_same_run_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    first = write_report([run], tmp_path / "new" / "a.html").read_bytes()
    assert write_report([run], tmp_path / "b.html").read_bytes() == first
    assert write_report([run], tmp_path) == tmp_path / "report.html"


def test_everything_a_user_chose_is_escaped(tmp_path: Path) -> None:
    bad = f"{HOSTILE}\"'&$x_1$"
    for name in ("a", "b"):
        make_run(
            tmp_path / name,
            bad,
            config={bad: {bad: bad + name}, "algorithm": {"kind": bad}},
            result={"status": bad, "message": bad, "weights_sha256": bad},
            events=[{"time": bad, "round": bad, "kind": bad, "worker": bad, "pid": bad, "node": bad, bad: [bad]}],
            shards=[{"rows": 3, "labels": {bad: 3}}],
        )
    for runs in ([tmp_path / "a"], [tmp_path / "a", tmp_path / "b"]):
        page = write_report(runs, tmp_path / "out.html")
        _, text = check(page)
        assert text.count(HOSTILE) > 10
        assert "<script" not in page.read_text(encoding="utf-8")


def test_several_runs(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "one", "first", config={"algorithm": {"kind": "sisa", "rho": 200}}),
        make_run(
            tmp_path / "two", "second", config={"algorithm": {"kind": "pisa", "rho": 200}}, without=("result.json",)
        ),
    ]
    page = write_report(runs)
    assert page == runs[0] / "report.html"
    checker, text = check(page)
    assert "Comparison of 2 runs" in text
    assert "algorithm.kind" in text
    assert "algorithm.rho" not in text
    assert "finished" in text
    assert "unfinished" in text
    assert any("first, second" in name for name in checker.names)


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, "twin") for name in ("left", "right")]
    _, text = check(write_report(runs))
    assert f"twin ({runs[0]})" in text
    assert f"twin ({runs[1]})" in text
    assert "same settings" in text


@pytest.mark.parametrize(
    ("without", "said"),
    [
        (("result.json",), "No result.json: the run is still going"),
        (("partition.json",), "No partition.json"),
        (("events.jsonl",), "No events.jsonl"),
        (("metrics.jsonl",), "there is no evaluated round yet"),
        (("result.json", "partition.json", "events.jsonl", "metrics.jsonl"), "No metrics.jsonl"),
    ],
)
def test_absent_files_are_named(tmp_path: Path, without: tuple[str, ...], said: str) -> None:
    _, text = check(write_report([make_run(tmp_path / "run", without=without)]))
    assert said in text


def test_absent_file_in_one_of_two_runs(tmp_path: Path) -> None:
    every = ("result.json", "partition.json", "events.jsonl", "metrics.jsonl")
    _, text = check(write_report([make_run(tmp_path / "a"), make_run(tmp_path / "b", "bare", without=every)]))
    assert "bare" in text


def test_no_test_data(tmp_path: Path) -> None:
    rows = [{"round": at, "train_loss": 1 / at} for at in range(1, 9)]
    _, text = check(write_report([make_run(tmp_path / "run", rows=rows, result={"best_test_accuracy": None})]))
    assert "No test accuracy" in text
    assert "Not recorded, so not drawn: accuracy" in text
    assert "Test accuracy" not in text


def test_empty_metrics_and_failure(tmp_path: Path) -> None:
    result = {"status": "failed", "message": "a NaN in round 1"}
    _, text = check(write_report([make_run(tmp_path / "run", rows=[], result=result)]))
    assert "metrics.jsonl holds no evaluated round yet" in text
    assert "a NaN in round 1" in text
    assert "failed" in text


def test_values_that_are_not_numbers(tmp_path: Path) -> None:
    rows = [row(at) for at in range(1, 7)]
    rows[3] |= {"train_loss": None, "test_loss": float("nan"), "sigma": float("inf"), "dual_residual": "x"}
    rows[4] |= {"primal_residual": 0.0, "augmented_lagrangian": -3.0, "test_accuracy": True}
    run = make_run(tmp_path / "run", rows=rows, result={"test_loss": None, "train_loss": float("nan")})
    _, text = check(write_report([run]))
    assert "No finite value in 1 evaluated round: not drawn." in text
    assert "nan" not in text.lower().split()


def test_losses_that_ended_in_nan(tmp_path: Path) -> None:
    rows = [row(at) for at in range(1, 7)] + [row(7, train_loss=float("nan"), test_loss=None)]
    result = {"status": "failed", "train_loss": None, "test_loss": None}
    _, text = check(write_report([make_run(tmp_path / "run", rows=rows, result=result)]))
    assert re.search(r"Train loss - 1\.\d+ in round 6", text)


def test_many_runs_are_named_once(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"{i}", f"run {i}", rows=[few(1), few(2)]) for i in range(9)]
    _, text = check(write_report(runs))
    assert "Comparison of 9 runs" in text
    assert "colours of the runs are those of the first table" in text


@pytest.mark.parametrize("value", [None, float("nan"), 0.0, -1.0, 1e-300, 1e300])
def test_one_round_and_odd_values(tmp_path: Path, value: float | None) -> None:
    keys = ("train_loss", "test_loss", "sigma", "primal_residual", "consensus_residual", "test_accuracy", "momentum")
    check(write_report([make_run(tmp_path / "run", rows=[{"round": 1, **dict.fromkeys(keys, value)}])]))


def test_spread_of_hundreds_of_decades(tmp_path: Path) -> None:
    rows = [{"round": at, "primal_residual": 10.0 ** (-60 * at)} for at in range(1, 6)]
    check(write_report([make_run(tmp_path / "run", rows=rows)]))


def test_broken_files_are_said_not_fatal(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "config.yaml").write_text("name: [", encoding="utf-8")
    (run / "result.json").write_text("[1]", encoding="utf-8")
    (run / "partition.json").write_bytes(b"\xff\xfe{")
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"round": 31, "train_lo')
    (run / "events.jsonl").write_text('{"kind": "lone \\ud800 surrogate"}\n7\n"x"\n', encoding="utf-8")
    _, text = check(write_report([run]))
    assert "config.yaml cannot be read" in text
    assert "result.json cannot be read" in text
    assert "partition.json cannot be read" in text
    assert "metrics.jsonl: 1 line cannot be read and is left out" in text
    assert "events.jsonl: 2 lines cannot be read and are left out" in text


@pytest.mark.parametrize(("shards", "labels"), [(1, 1), (4, 2), (10, 10), (100, 10), (7, 100), (100, 100), (1000, 3)])
def test_partitions_of_many_sizes(tmp_path: Path, shards: int, labels: int) -> None:
    made = []
    for i in range(shards):
        counts = {f"class {k}": (i * k) % 7 * 10 for k in range(labels)}
        made.append({"rows": sum(counts.values()), "labels": counts})
    page = write_report([make_run(tmp_path / "run", shards=made)])
    _, text = check(page)
    assert f"{shards:,} shard" in text
    assert page.stat().st_size < 500_000


def test_partition_without_labels_or_rows(tmp_path: Path) -> None:
    _, text = check(write_report([make_run(tmp_path / "a", shards=[{"rows": 5}, {"rows": 7}])]))
    assert "2 shards, 12 rows, no labels recorded" in text
    odd: list[dict[str, Any]] = [{"labels": {"1": 2, "x": None}}, {"rows": 0, "labels": {}}, {"labels": [1]}]
    _, text = check(write_report([make_run(tmp_path / "b", shards=odd)]))
    assert "3 shards, 2 rows, 1 label" in text
    _, text = check(write_report([make_run(tmp_path / "c", shards=[])]))
    assert "partition.json names no shards" in text


def test_many_events_are_folded_and_counted(tmp_path: Path) -> None:
    events = [{"kind": "checkpoint_saved", "round": i, "path": f"round-{i}"} for i in range(1500)]
    checker, text = check(write_report([make_run(tmp_path / "run", events=events)]))
    assert "checkpoint_saved 1500" in text
    assert "details" in checker.tags
    assert "1,100 events between are in events.jsonl only" in text
    assert "path=round-1499" in text


def test_a_thousand_rows_stay_small(tmp_path: Path) -> None:
    rows = [row(at, validation_accuracy=0.5 + 0.4 * math.sin(at), train_loss=2 + math.cos(at)) for at in range(1, 1001)]
    page = write_report([make_run(tmp_path / "run", rows=rows)])
    check(page)
    assert page.stat().st_size < 300_000


def test_thinning_keeps_ends_and_spikes() -> None:
    points = [(float(x), 0.0) for x in range(10_000)]
    points[4321] = (4321.0, 9.0)
    points[8765] = (8765.0, -9.0)
    thinned = thin(points)
    assert len(thinned) <= 362
    assert {points[0], points[4321], points[8765], points[-1]} <= set(thinned)
    assert thinned == sorted(thinned)


def test_what_is_not_a_run_directory(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ConfigError, match=re.escape(str(path))) as error:
            write_report([make_run(tmp_path / f"run-{path.name}"), path])
        assert "config.yaml" in str(error.value)
        assert "pisa-ray train" in str(error.value)
    with pytest.raises(ConfigError, match="No run directory"):
        write_report([])


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="--out"):
        write_report([make_run(tmp_path / "run")], tmp_path / "file" / "page.html")
