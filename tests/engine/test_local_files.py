"""Files in folders where others may write: never through a link, whole or not at all, and nothing waits for a pipe."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from torch import nn

from pisa_ray.engine.files import Folder
from pisa_ray.engine.flat_model import FlatModel
from pisa_ray.engine.local_files import append, clear_parts, new_folder, read_file, set_aside, write_file
from pisa_ray.errors import PisaError


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("precious")
    return path


def test_a_link_is_replaced_and_its_target_is_not_touched(tmp_path: Path, victim: Path) -> None:
    link = tmp_path / "result.json"
    link.symlink_to(victim)
    write_file(link, b"new")
    assert victim.read_text() == "precious"
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"


def test_nothing_is_appended_through_a_link(tmp_path: Path, victim: Path) -> None:
    link = tmp_path / "metrics.jsonl"
    link.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        append(link, "row\n")
    assert victim.read_text() == "precious"


def test_parts_that_somebody_has_laid_out_as_links_are_not_written_to(tmp_path: Path, victim: Path) -> None:
    for name in (".config.yaml.part", ".00000000.config.yaml.part"):
        (tmp_path / name).symlink_to(victim)
    Folder(str(tmp_path)).write("config.yaml", b"new")
    clear_parts(tmp_path, ("config.yaml",))
    assert victim.read_text() == "precious"
    assert not (tmp_path / ".00000000.config.yaml.part").is_symlink()


@pytest.mark.parametrize("what", ["folder", "pipe"])
def test_what_is_no_file_is_neither_read_nor_written_nor_waited_for(tmp_path: Path, what: str) -> None:
    path = tmp_path / "it"
    path.mkdir() if what == "folder" else os.mkfifo(path)
    for call in (lambda: read_file(path), lambda: write_file(path, b""), lambda: append(path, "x")):
        with pytest.raises(OSError, match=r"directory|Not a regular file|No such device"):
            call()
    with pytest.raises(PisaError, match="it cannot be read"):
        Folder(str(tmp_path)).read("it")
    assert set_aside(path).name == "it.damaged"
    assert [p.name for p in tmp_path.iterdir()] == ["it.damaged"]


def test_too_much_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"12345")
    assert read_file(tmp_path / "it", 5) == b"12345"
    with pytest.raises(OSError, match="too large"):
        read_file(tmp_path / "it", 4)


def test_a_line_that_does_not_fit_on_the_disk_leaves_no_part_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "events.jsonl", os.write
    append(path, "first\n")
    sizes = iter([3])

    def full(handle: int, data: bytes) -> int:
        size = next(sizes, None)
        if size is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data[:size])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        append(path, "second\n")
    assert path.read_text() == "first\n"


def test_a_folder_takes_the_place_of_a_link_of_a_folder_and_of_a_file(tmp_path: Path) -> None:
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "pretrained"
    elsewhere.mkdir()
    (elsewhere / "config.json").write_text("precious")
    path.symlink_to(elsewhere)
    for content in ("1", "2", "3"):
        with new_folder(path) as part:
            (part / "config.json").write_text(content)
        assert not path.is_symlink()
        assert (path / "config.json").read_text() == content
    assert (elsewhere / "config.json").read_text() == "precious"
    with pytest.raises(RuntimeError), new_folder(path) as part:
        raise RuntimeError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "pretrained"]


def test_the_model_has_the_permissions_of_the_other_files_and_is_not_written_through_a_link(
    tmp_path: Path, victim: Path
) -> None:
    (tmp_path / "model.safetensors").symlink_to(victim)
    FlatModel(nn.Linear(2, 1)).save(tmp_path / "model.safetensors")
    write_file(tmp_path / "other", b"")
    assert victim.read_text() == "precious"
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_folder_that_is_a_link_is_not_among_the_folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert Folder(str(tmp_path)).folders() == ["a"]
