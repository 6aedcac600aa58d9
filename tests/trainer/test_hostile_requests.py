"""Files that ask something of a run that is going on: whoever may write in its folder may leave what is no request."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from runs import events, run

from pisa_ray.trainer.changes import Asked
from pisa_ray.trainer.requests import Requests

GARBAGE = [
    b"",
    b"\0\0",
    b"[" * 100_000,
    b"5",
    b"[1]",
    b'["a"]',
    b"null",
    b"{}",
    b'{"workers": 0}',
    b'{"workers": -3}',
    b'{"workers": true}',
    b'{"workers": 2.0}',
    b'{"workers": "2"}',
    b'{"workers": 1e400}',
    b'{"workers": ' + b"9" * 5000 + b"}",
    b'{"workers": {"a": 1}}',
    b'{"remove": null, "add": null}',
    b'{"remove": null, "add": 5}',
    b'{"remove": null, "add": ["a"]}',
    b'{"remove": 1, "add": "x"}',
    b'{"remove": -1, "add": null}',
    b'{"remove": true, "add": null}',
    b'{"remove": 1.5, "add": null}',
    b"\xff\xfe",
    b" " * (1 << 21),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_what_is_no_request_is_set_aside_and_told_once(tmp_path: Path, garbage: bytes) -> None:
    requests = Requests(tmp_path)
    for name in ("resize.json", "shards-1.json"):
        (tmp_path / name).write_bytes(garbage)
    assert requests.take_resize() is None
    assert requests.asked_shards() == []
    told = requests.set_aside_garbage()
    assert [sentence.partition(" ")[0] for sentence in told] == ["resize.json", "shards-1.json"]
    assert "resize.json.damaged" in told[0]
    assert (tmp_path / "resize.json.damaged").read_bytes() == garbage
    assert (tmp_path / "shards-1.json.damaged").read_bytes() == garbage
    assert requests.set_aside_garbage() == []


def test_folders_pipes_and_links_are_no_requests(tmp_path: Path) -> None:
    requests, victim = Requests(tmp_path), tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "resize.json").mkdir()
    os.mkfifo(tmp_path / "shards-1.json")
    (tmp_path / "shards-2.json").symlink_to(victim)
    (tmp_path / "shards-3.json").symlink_to("/dev/zero")
    assert requests.take_resize() is None
    assert len(requests.set_aside_garbage()) == 4
    assert victim.read_text() == "precious"
    assert sorted(tmp_path.glob("shards-*.json")) == []


def test_requests_are_written_beside_a_link_and_not_through_it(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "resize.json").symlink_to(victim)
    requests = Requests(tmp_path)
    requests.ask_resize(3)
    assert victim.read_text() == "precious"
    assert requests.take_resize() == 3
    assert requests.take_resize() is None
    requests.ask_shards(Asked(remove=1))
    (asked,) = requests.asked_shards()
    assert (asked.remove, asked.add) == (1, None)
    requests.forget_shards(asked)
    assert requests.set_aside_garbage() == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["victim"]


def test_garbage_that_is_there_while_a_run_goes_on_is_an_event_and_nothing_else(tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "undisturbed", rounds=2)
    folder = tmp_path / "run"
    folder.mkdir()
    for i, garbage in enumerate(GARBAGE):
        (folder / f"shards-{i}.json").write_bytes(garbage)
    (folder / "shards-98.json").write_text(json.dumps({"remove": None, "add": "/nowhere/\0"}))
    (folder / "shards-99.json").write_text(json.dumps({"remove": 10**200, "add": None}))
    (folder / "resize.json").mkdir()
    assert run(folder, rounds=2).weights_sha256 == undisturbed.weights_sha256
    assert len(events(folder, "request_refused")) == len(GARBAGE) + 1
    assert len(events(folder, "shards_refused")) == 2
